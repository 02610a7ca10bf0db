"""The scripts and the notebook of examples/ run, and what they write is read by the commands."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from densenet121 import EvalConfig, Predictor, evaluate
from densenet121.checkpoint.load import read_weights

from helpers.commands import REPOSITORY, environment
from helpers.images import write_classes

pytestmark = pytest.mark.tutorials
EXAMPLES = REPOSITORY / "examples"
NOTEBOOK = EXAMPLES / "first_model.ipynb"
SHORTER = [
    (r"max_epoch=\d+", "max_epoch=1"),
    (r"image_size=32,", 'image_size=16, net="densenet40",'),
    (r"zip\(digits.images, digits.target\)", r"list(\g<0>)[:400]"),
]
SMALL = ["--epochs", "1", "--image_size", "16", "--net", "densenet40", "--batch_size", "6"]


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
    predictor = Predictor(weights, net="densenet40", image_size=(16, 16), eval_resize="16")
    (answer,) = predictor.predict([tmp_path / "images/val/ant/000.png"])
    assert sum(answer.probabilities) == pytest.approx(1)
    found = evaluate(
        EvalConfig(
            data_dir="images",
            pretrained="plain.pth",
            net="densenet40",
            image_size=16,
            interpolation="opencv_bilinear",
            amp="fp32",
        )
    )
    (evaluation,) = found.evaluations.values()
    assert evaluation is not None
    assert evaluation.metrics["top1"] == correct  # as the guide says
    main(["images", *SMALL, "--workers", "0", "--pretrained", "plain.pth"])
    again = torch.load(weights, weights_only=True)
    assert int(again["features.norm5.num_batches_tracked"]) == 4  # two epochs of two steps


def cells_of(notebook: Path, kind: str) -> list[dict[str, Any]]:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def test_every_cell_of_the_notebook_runs(tmp_path: Path) -> None:
    """In one process, in order, with fewer images and epochs."""
    code = "\n".join("".join(cell["source"]) for cell in cells_of(NOTEBOOK, "code"))
    for pattern, shorter in SHORTER:
        code, count = re.subn(pattern, shorter, code)
        assert count == 1, pattern
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment(TMPDIR=str(tmp_path)), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "after allreduce eval: top1_correct=" in done.stdout
    assert '"predicted": "digit_' in done.stdout
    assert done.stdout.splitlines()[-1] == "status 0"


def test_the_committed_notebook_is_small_and_was_run_in_order() -> None:
    assert NOTEBOOK.stat().st_size < 150_000
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"(?<!\w)/(?:root|work|home|tmp)/", text)
    code = cells_of(NOTEBOOK, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    for link in re.findall(r"\]\(([^)#\s]+)\)", "".join(
        line for cell in cells_of(NOTEBOOK, "markdown") for line in cell["source"]
    )):  # fmt: skip
        assert (NOTEBOOK.parent / link).exists(), link
