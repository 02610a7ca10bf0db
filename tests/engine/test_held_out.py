"""The pooled predictions of a study."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from densenet121.config import StudyConfig
from densenet121.engine.folds import folds_of, study_images
from densenet121.engine.held_out import Pool
from densenet121.engine.study_results import study_results
from densenet121.runs.study import HeldOut

from helpers.tables import write_class_table


@pytest.mark.parametrize("seeds", [1, 2])
def test_sure_scores_keep_their_order(seeds: int, tmp_path: Path) -> None:
    """All probabilities of the first class are within 4e-9 of 1, where float32 has no other."""
    source = write_class_table(tmp_path / "data", 18)
    config = StudyConfig(
        data_dir=str(source), run_dir=str(tmp_path / "study"), folds=3, seeds=seeds, stratify=True
    )
    images = study_images(config)
    logits = np.zeros((seeds, len(images.paths), 3), np.float32)
    logits[..., 0] = np.random.default_rng(1).uniform(20, 30, logits.shape[:2])
    found = {seed: HeldOut(one, {}) for seed, one in zip(config.seed_numbers, logits, strict=True)}
    pool = Pool(config, images, folds_of(images, config), found)
    first = study_results(pool)["ensemble"]["labels"][images.names[0]]
    truth = images.labels == 0
    others = (2 / (2 + np.exp(logits[..., 0].astype(np.float64)))).mean(axis=0)
    assert first["auroc"] == pytest.approx(roc_auc_score(truth, -others), abs=1e-12)
    assert first["log_loss"] == pytest.approx(log_loss(truth, 1 - others), rel=1e-5)
