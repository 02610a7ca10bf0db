"""Runs with class weights, draws and the focal loss: logged, exact on resume, refused by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densenet121.cli import main
from densenet121.config import TrainConfig
from densenet121.datasets.preparation import training_images
from densenet121.datasets.sources.label_table import LabelRules, read_label_table
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.transforms import TrainTransform
from densenet121.engine.balance import make_pos_weight
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.runs.metrics import read_rows
from densenet121.tasks import SingleLabel
from densenet121.utils.errors import InputError, UsageError

from helpers.images import write_classes
from helpers.training import train_config
from helpers.weights import eval_config
from tasks.ordinal import Ordinal


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24, 12 and 4 training images of three classes, and 5 of each to validate on."""
    root = tmp_path_factory.mktemp("unequal")
    for name, count in (("ant", 24), ("bee", 12), ("cat", 4)):
        # The colour of a class comes from its place among all names.
        write_classes(root / "all", ["ant", "bee", "cat"], 24)
        (root / "train").mkdir(exist_ok=True)
        shutil.copytree(root / "all" / name, root / "train" / name)
        for path in sorted((root / "train" / name).iterdir())[count:]:
            path.unlink()
    write_classes(root / "val", ["ant", "bee", "cat"], 5)
    return root


def config(unequal: Path, folder: Path, **flags: Any) -> TrainConfig:
    given = {"per_batch_size": 10, "ckpt_interval": 1, "keep_checkpoint_max": 0, "amp": "fp32"}
    return train_config(unequal, folder, **(given | flags))


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    timed = ("images_per_second", "data_wait")
    rows = read_rows(folder / "metrics.jsonl")
    kept = [{key: value for key, value in row.items() if key not in timed} for row in rows]
    return (folder / "last.safetensors").read_bytes(), kept


def log_of(folder: Path) -> str:
    return next(folder.glob("*.log")).read_text()


SETTINGS: list[dict[str, Any]] = [
    {"loss": "focal", "class_weights": "effective:0.9", "gradient_accumulation": 2},
    {"class_weights": "balanced"},
    {"sampler": "balanced"},
    {"sampler": "sqrt", "label_smooth": 1},
]


@pytest.mark.parametrize(
    "flags",
    [SETTINGS[0], *(pytest.param(s, marks=pytest.mark.slow) for s in SETTINGS[1:])],
    ids=str,
)
def test_resumed_run_equals_uninterrupted_run(
    flags: dict[str, Any], unequal: Path, tmp_path: Path
) -> None:
    whole = config(unequal, tmp_path / "whole", **flags)
    train(whole)
    steps = json.loads((tmp_path / "whole" / "run.json").read_text())["steps_per_epoch"]
    middle = tmp_path / "whole" / f"0-2_{max(1, steps // 2)}.ckpt"
    train(replace(whole, output_dir=str(tmp_path / "again"), resume=str(middle), workers=2))
    assert outcome(tmp_path / "again") == outcome(tmp_path / "whole")
    plain = config(unequal, tmp_path / "plain", gradient_accumulation=whole.gradient_accumulation)
    train(plain)
    assert outcome(tmp_path / "plain")[0] != outcome(tmp_path / "whole")[0]


def test_counts_and_weights_are_logged_and_both_at_once_warned_of(
    unequal: Path, tmp_path: Path
) -> None:
    train(config(unequal, tmp_path / "a", max_epoch=1, class_weights="balanced"))
    # 1/24, 1/12, 1/4 over their mean 1/8
    line = "classes (training images x weight): ant 24 x 0.3333, bee 12 x 0.6667, cat 4 x 2"
    assert line in log_of(tmp_path / "a") and "count twice" not in log_of(tmp_path / "a")
    both = config(unequal, tmp_path / "b", max_epoch=1, class_weights="sqrt", sampler="sqrt")
    train(both)
    warning = "WARNING:`sampler` sqrt and `class_weights` sqrt are both on: rare classes count"
    assert warning in log_of(tmp_path / "b")
    train(config(unequal, tmp_path / "c", max_epoch=1))
    assert "classes (training" not in log_of(tmp_path / "c")


def test_validation_is_never_reweighted(unequal: Path, tmp_path: Path) -> None:
    settings = config(
        unequal, tmp_path / "run", max_epoch=1, class_weights="balanced", loss="focal"
    )
    found = train(settings).evaluation
    assert found is not None
    weights = tmp_path / "run" / "last.safetensors"
    (plain,) = evaluate(
        eval_config(unequal, weights, tmp_path / "eval", per_batch_size=10)
    ).evaluations.values()
    assert plain is not None
    assert found.metrics == plain.metrics and found.digest == plain.digest


def test_every_copy_of_an_image_has_its_own_augmentation(unequal: Path) -> None:
    dataset, _ = open_training(unequal)
    prepare = training_images(dataset, TrainTransform(32, 32), seed=1, epoch=2)
    images = np.empty((4, 32, 32, 3), np.uint8)
    for draw, out in zip((5, 5, 5 + 40, 5 + 80), images, strict=True):
        prepare(draw, out)
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2]) and not np.array_equal(images[2], images[3])


def test_the_weights_of_a_task_are_those_of_its_loss() -> None:
    task = SingleLabel(0.1, None, (0.5, 1.0, 1.5))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 3, generator=generator)
    labels = torch.randint(3, (12,), generator=generator)
    parts = [slice(0, 5), slice(5, 12)]
    weights = [task.weight(labels[part]) for part in parts]
    joined = sum(
        float(task.loss(logits[part], labels[part])) * weight
        for part, weight in zip(parts, weights, strict=True)
    ) / sum(weights)
    assert joined == pytest.approx(float(task.loss(logits, labels)), rel=1e-6)
    assert not task.every_image_weighs_one and SingleLabel().every_image_weighs_one


@pytest.mark.slow
def test_two_ranks_draw_and_weigh_as_the_settings_say(unequal: Path, tmp_path: Path) -> None:
    from helpers.ranks import result
    from helpers.ranks import train as train_ranks

    flags = ("--sampler", "balanced", "--class_weights", "sqrt")
    train_ranks(2, unequal, tmp_path / "whole", *flags)
    middle = tmp_path / "whole" / "0-2_2.ckpt"
    train_ranks(2, unequal, tmp_path / "again", *flags, "--resume", middle)
    assert result(tmp_path / "again")[0] == result(tmp_path / "whole")[0]


def test_a_file_of_weights_that_changed_is_refused_on_resume(unequal: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.csv"
    file.write_text("ant,1\nbee,2\ncat,3\n")
    whole = config(unequal, tmp_path / "run", class_weights=str(file), max_epoch=1)
    train(whole)
    assert "ant 24 x 0.5, bee 12 x 1, cat 4 x 1.5" in log_of(tmp_path / "run")
    again = replace(whole, resume=str(tmp_path / "run" / "0-1_2.ckpt"))
    moved = tmp_path / "moved.csv"
    shutil.copy(file, moved)
    train(replace(again, class_weights=str(moved), output_dir=str(tmp_path / "same")))
    assert outcome(tmp_path / "same")[0] == outcome(tmp_path / "run")[0]
    file.write_text("ant,1\nbee,2\ncat,4\n")
    with pytest.raises(UsageError, match=r"--class_weights was file [0-9a-f]{16}, is now file"):
        train(replace(again, output_dir=str(tmp_path / "other")))


def test_pos_weight_refuses_a_label_without_positives_or_without_negatives(tmp_path: Path) -> None:
    """Without negatives the weight was 0, so that the label was not trained at all."""
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    table = tmp_path / "labels.csv"
    given = TrainConfig(data_dir=str(table), task="multilabel", pos_weight="balanced")
    for cell, kind in ((1, "negative"), (0, "positive")):
        table.write_text(f"path,edema,mass\na.png,1,{cell}\nb.png,0,{cell}\n")
        images = read_label_table(table, LabelRules(names=("edema", "mass")))
        said = f"the label mass has no {kind} image, so `pos_weight` balanced has no value for it"
        with pytest.raises(InputError, match=said):
            make_pos_weight(given, images)
    images = read_label_table(table, LabelRules(names=("edema",)))
    assert make_pos_weight(given, images) == (1.0,)


ASL = ("--task", "multilabel", "--loss", "asl")


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--focal_gamma", "1"], 2, "--focal_gamma is for --loss focal, but --loss is ce"),
        (["--loss", "focal", "--focal_gamma", "-1"], 2, "--focal_gamma must be at least 0"),
        (["--loss", "focal", "--label_smooth", "1"], 2, "--loss focal and --label_smooth 1"),
        (["--loss", "bce"], 2, "--loss must be one of ce, focal, asl, got bce"),
        (["--asl_clip", "0"], 2, "--asl_clip is for --loss asl, but --loss is ce"),
        ([*ASL, "--focal_gamma", "1"], 2, "--focal_gamma is for --loss focal, but"),
        (["--loss", "focal", "--asl_gamma_pos", "1"], 2, "--asl_gamma_pos is for --loss asl, but"),
        ([*ASL, "--asl_clip", "1"], 2, "--asl_clip must be at least 0 and below 1"),
        ([*ASL, "--asl_gamma_neg", "-1"], 2, "--asl_gamma_neg must be at least 0"),
        ([*ASL, "--label_smooth", "1"], 2, "--loss asl and --label_smooth 1 exclude"),
        ([*ASL, "--pos_weight", "sqrt"], 2, "--loss asl and --pos_weight sqrt exclude"),
        (["--loss", "asl"], 2, "--loss asl has no meaning with --task single_label"),
        (["--class_weights", "effective:1"], 2, "needs a B of at least 0 and below 1, got 1"),
        (["--class_weights", "effective:x"], 2, "needs a B of at least 0 and below 1, got x"),
        (["--class_weights", ""], 2, "--class_weights must be a rule or a file"),
        (
            ["--class_weights", "balance"],
            1,
            "effective:B or a file of class,weight lines; there is",
        ),
        (["--sampler", "random"], 2, "--sampler must be one of uniform, balanced, sqrt"),
    ],
)
def test_a_wrong_setting_is_one_line(
    flags: list[str],
    status: int,
    message: str,
    unequal: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = ["--output_dir", str(tmp_path / "run"), "--net", "densenet40"]
    assert main(["train", "--data_dir", str(unequal), *folder, *flags]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["class_weights", "sampler"])
def test_a_class_without_images_is_refused(
    flag: str, unequal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{unequal}/train/{name}/00{i}.png {name}" for name in ("ant", "bee") for i in (0, 1)]
    (tmp_path / "list.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    command = ["train", "--data_dir", str(tmp_path / "list.txt"), "--net", "densenet40"]
    command += ["--output_dir", str(tmp_path / "run"), f"--{flag}", "balanced"]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert f"no training image of class cat, but --{flag} needs images" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"), [("class_weights", "balanced"), ("loss", "focal"), ("label_smooth", 1)]
)
def test_a_task_of_ones_own_has_its_own_loss(
    name: str, value: Any, unequal: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"`{name}` is a setting of the task single_label"):
        train(config(unequal, tmp_path / "run", **{name: value}), task=Ordinal())
