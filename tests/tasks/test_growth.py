"""A third task, defined beside the tests and nowhere else, goes the whole way of a run."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from densenet121.checkpoint.load import read_weights
from densenet121.commands.compare import compare
from densenet121.commands.export import export
from densenet121.commands.predict import predict
from densenet121.config import CompareConfig, EvalConfig, ExportConfig, PredictConfig
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.inference.predictor import Predictor
from densenet121.report import write_report
from densenet121.runs.metrics import read_rows
from densenet121.utils.errors import InputError, UsageError

from helpers.ranks import run
from helpers.training import train_config
from tasks.ordinal import Grade, Ordinal

GRADES = ["0_none", "1_mild", "2_severe", "3_worst"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four ordered classes: the higher the grade, the brighter the image."""
    root = tmp_path_factory.mktemp("graded")
    for split, count in (("train", 10), ("val", 5)):
        for grade, name in enumerate(GRADES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng([grade, index, split == "val"])
                pixels = np.clip(rng.normal(40 + 55 * grade, 12, (24, 24, 3)), 0, 255)
                cv2.imwrite(str(folder / f"{index}.png"), pixels.astype(np.uint8))
    return root


def settings(graded: Path, folder: Path, **more: Any) -> dict[str, Any]:
    return {"per_batch_size": 8, "amp": "fp32", "color_jitter": "0,0,0", "ckpt_interval": 2} | more


@pytest.fixture(scope="module")
def trained(graded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ordinal") / "run"
    config = train_config(graded, folder, **settings(graded, folder, max_epoch=3))
    result = train(config, task=Ordinal())
    assert not result.stopped and result.evaluation is not None
    return folder


def test_it_trains_and_validates_with_its_own_metrics(trained: Path, graded: Path) -> None:
    rows = [row for row in read_rows(trained / "metrics.jsonl") if row["kind"] == "eval"]
    assert [set(row) for row in rows] == [
        {"kind", "epoch", "step", "loss", "absolute_error", "total"}
    ] * 3
    assert rows[-1]["absolute_error"] < 1.0  # always answering one middle grade: 1.0
    weights = read_weights(trained / "best.safetensors")
    assert weights.info is not None and weights.info.task == "ordinal"
    assert weights.num_classes == 3 and weights.info.class_names == tuple(GRADES)
    log = next(trained.glob("*.log")).read_text()
    assert "eval: absolute_error=" in log and "best: epoch[" in log and "top1" not in log


def test_it_resumes_bit_for_bit(trained: Path, graded: Path, tmp_path: Path) -> None:
    middle = trained / "0-2_3.ckpt"  # three of the five steps of the second epoch
    assert middle.exists()
    more = settings(graded, tmp_path, max_epoch=3, resume=str(middle))
    train(train_config(graded, tmp_path / "again", **more), task=Ordinal())
    for name in ("last.safetensors", "predictions.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes()
    with pytest.raises(UsageError, match=r"another task: it was ordinal, and is now single_label"):
        train(train_config(graded, tmp_path / "other", **more))


def test_two_ranks_evaluate_it_as_one_does(trained: Path, graded: Path, tmp_path: Path) -> None:
    flags: dict[str, Any] = {
        "data_dir": str(graded),
        "pretrained": str(trained / "last.safetensors"),
    }
    flags |= {"amp": "fp32", "device": "cpu"}
    script = Path(__file__).with_name("ordinal.py")
    run(2, script, "eval", json.dumps({**flags, "output_dir": str(tmp_path / "two")}))
    evaluate(EvalConfig(**flags, output_dir=str(tmp_path / "one")), task=Ordinal())
    one, two = (json.loads((tmp_path / n / "eval.json").read_text()) for n in ("one", "two"))
    assert one["digest"] == two["digest"] and one["total"] == two["total"] == 20
    assert one["task"] == "ordinal" and one["absolute_error"] == two["absolute_error"]
    tables = [(tmp_path / n / "predictions.csv").read_text() for n in ("one", "two")]
    assert tables[0].splitlines()[0] == "path,label,predicted,expected"
    assert tables[0] == tables[1]


def test_two_ranks_train_it(graded: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    flags = {
        "data_dir": str(graded), "output_dir": str(folder), "net": "densenet40", "image_size": 16,
        "per_batch_size": 5, "max_epoch": 1, "device": "cpu", "amp": "fp32", "workers": 1,
    }  # fmt: skip
    run(2, Path(__file__).with_name("ordinal.py"), "train", json.dumps(flags))
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "eval"]
    assert rows[-1]["total"] == 20


def test_the_report_has_its_section(trained: Path) -> None:
    page = write_report(trained, Ordinal()).read_text(encoding="utf-8")
    assert "Mean absolute error" in page and "<h2>Wrong grades</h2>" in page
    assert "Top-1" not in page and "Confusion" not in page
    with pytest.raises(InputError, match="its task is ordinal, which this version does not have"):
        write_report(trained)


def test_predict_answers_in_its_words(
    trained: Path, graded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(trained / "best.safetensors")
    images = [str(graded / "val" / GRADES[0]), str(graded / "val" / GRADES[3])]
    config = PredictConfig(inputs=images, pretrained=weights, format="csv", amp="fp32")
    assert predict(config, Ordinal()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "path,grade,expected" and len(lines) == 11
    answers = Predictor(weights, amp="fp32", task=Ordinal()).predict(
        sorted((graded / "val" / GRADES[3]).iterdir())
    )
    assert all(isinstance(answer, Grade) for answer in answers)
    assert [answer.name for answer in answers] == [line.split(",")[1] for line in lines[6:]]
    with pytest.raises(InputError, match="its task is ordinal"):
        Predictor(weights)


def test_what_it_does_not_define_is_refused_by_name(
    trained: Path, graded: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="`label_smooth` is a setting of the task single_label"):
        train(train_config(graded, tmp_path / "run", label_smooth=1), task=Ordinal())
    assert not (tmp_path / "run").exists()
    config = CompareConfig(a=str(trained), b=str(trained))
    with pytest.raises(InputError, match="evaluations of the task ordinal cannot be compared"):
        compare(config, Ordinal())


def test_it_is_exported(trained: Path, graded: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    config = ExportConfig(
        pretrained=str(trained / "best.safetensors"),
        output=str(tmp_path / "m.onnx"),
        data_dir=str(graded),
        pictures=6,
    )
    assert export(config, Ordinal())["top1_agreement"] == 1.0
    images = sorted((graded / "val" / GRADES[2]).iterdir())
    exported = Predictor(tmp_path / "m.onnx", task=Ordinal()).predict(images)
    own = Predictor(trained / "best.safetensors", amp="fp32", task=Ordinal()).predict(images)
    assert [a.name for a in exported] == [a.name for a in own]


def test_the_package_does_not_know_it() -> None:
    source = Path(__file__).resolve().parents[2] / "src"
    assert not [path for path in source.rglob("*.py") if "ordinal" in path.read_text().lower()]
