"""The scripts of examples/ train, and what they write is read by the commands."""

import runpy
from pathlib import Path

import pytest
import torch

from densenet121 import Predictor
from densenet121.checkpoint.load import read_weights

from helpers.commands import REPOSITORY
from helpers.images import write_classes

pytestmark = pytest.mark.tutorials
EXAMPLES = REPOSITORY / "examples"
SMALL = ["--epochs", "1", "--image_size", "16", "--net", "densenet100", "--batch_size", "6"]


def test_the_plain_loop_trains_and_its_weights_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(tmp_path / "images" / "train", ["ant", "bee"], 6)
    write_classes(tmp_path / "images" / "val", ["ant", "bee"], 2)
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(EXAMPLES / "train_plain.py"))["main"]
    correct = main(["images", *SMALL, "--workers", "0"])
    assert capsys.readouterr().out.startswith("epoch 0: loss ")
    assert correct in (0, 0.25, 0.5, 0.75, 1)
    weights = tmp_path / "plain.pth"
    assert read_weights(weights).num_classes == 2
    predictor = Predictor(weights, net="densenet100", image_size=(16, 16), eval_resize="16")
    (answer,) = predictor.predict([tmp_path / "images/val/ant/000.png"])
    assert sum(answer.probabilities) == pytest.approx(1)
    main(["images", *SMALL, "--workers", "0", "--pretrained", "plain.pth"])
    again = torch.load(weights, weights_only=True)
    assert int(again["features.norm5.num_batches_tracked"]) == 4  # two epochs of two steps
