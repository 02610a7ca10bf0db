"""Evaluation: every image once, whatever the batch size; a clear word on what does not fit."""

import contextlib
import csv
import json
import logging
import math
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import save_weights
from densenet121.datasets.decoding import read_image
from densenet121.datasets.transforms import MEAN, STD
from densenet121.engine.evaluate import evaluate
from densenet121.network import build
from densenet121.report import write_report
from densenet121.runs.evaluations import read_evaluation
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import file_digest

from helpers.commands import no_file_beyond, run_command
from helpers.images import write_classes
from helpers.weights import NAMES, eval_config, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture(scope="module")
def prime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """101 images: no batch size but 1 divides them."""
    root = write_classes(tmp_path_factory.mktemp("prime"), list(NAMES), 33)
    for index in (0, 1):
        shutil.copy(root / "ant" / f"{index:03d}.png", root / "ant" / f"copy{index}.png")
    return root


def test_every_image_counts_once_whatever_the_batch_size(
    prime: Path, weights: Path, tmp_path: Path
) -> None:
    contents = []
    for batch_size in range(1, 8):
        folder = tmp_path / str(batch_size)
        assert evaluate(eval_config(prime, weights, folder, per_batch_size=batch_size)).complete
        contents.append(json.loads((folder / "eval.json").read_text()))
    assert {content["total"] for content in contents} == {101}
    assert len({content["digest"] for content in contents}) == 1
    assert len({content["top1_correct"] for content in contents}) == 1


def test_predictions_are_those_of_the_network_on_the_documented_preprocessing(
    prime: Path, weights: Path, tmp_path: Path
) -> None:
    import cv2

    from densenet121.checkpoint.pretrained import load_model

    evaluate(replace(eval_config(prime, weights, tmp_path / "eval"), amp="fp32"))
    with (tmp_path / "eval" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows][:2] == ["ant/000.png", "ant/001.png"]
    model = load_model(weights)
    losses = []
    for row in rows:
        pixels = cv2.resize(read_image(prime / row["path"]), (20, 20))[2:18, 2:18]
        image = (torch.from_numpy(np.ascontiguousarray(pixels)).float() - MEAN) / STD
        with torch.inference_mode():
            logits = model(image.permute(2, 0, 1)[None])[0]
        assert row["predicted"] == NAMES[int(logits.argmax())]
        assert abs(float(row["probability"]) - float(logits.softmax(0).max())) < 1e-5
        label = NAMES.index(row["label"])
        assert int(row["rank"]) == 1 + int((logits > logits[label]).sum())
        losses.append(-float(logits.log_softmax(0)[label]))
    content = json.loads((tmp_path / "eval" / "eval.json").read_text())
    correct = sum(row["label"] == row["predicted"] for row in rows)
    assert content["top1_correct"] == correct == sum(row["rank"] == "1" for row in rows)
    assert content["top5_correct"] == 101
    assert math.isclose(content["loss"], float(np.mean(losses)), rel_tol=1e-4)
    assert math.isclose(content["top1"], correct / 101)


def test_a_folder_of_weights_is_evaluated_newest_first_with_a_table(
    prime: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    for seed, name in enumerate(("0-2_5.ckpt", "0-10_5.ckpt", "0-2_12.ckpt", "best.safetensors")):
        write_weights(folder / name, seed)
    (folder / "0-3_5.ckpt").write_bytes((folder / "0-2_5.ckpt").read_bytes()[:5000])
    (folder / "notes.txt").write_text("not weights")
    result = evaluate(eval_config(prime, folder, tmp_path / "eval"))
    names = ["0-10_5.ckpt", "0-3_5.ckpt", "0-2_12.ckpt", "0-2_5.ckpt", "best.safetensors"]
    assert [path.name for path in result.evaluations] == names
    assert not result.complete  # one of them is damaged
    shown = capsys.readouterr().out
    assert re.search(r"ERROR:.*0-3_5\.ckpt: damaged", shown)
    table = shown[shown.index("weights  ") :].splitlines()
    assert [line.split(":INFO:")[-1].split()[0] for line in table[1:6]] == names
    assert sum(line.endswith("best") for line in table) >= 1
    results = json.loads((tmp_path / "eval" / "eval.json").read_text())["results"]
    assert [Path(content["checkpoint"]).name for content in results] == names
    assert (tmp_path / "eval" / "0-2_12" / "predictions.csv").exists()


def test_a_folder_of_weights_leaves_no_predictions_of_an_earlier_evaluation_beside_its_table(
    prime: Path, weights: Path, tmp_path: Path
) -> None:
    """compare took them for those of the new weights, without a word."""
    evaluate(eval_config(prime, weights, tmp_path / "eval"))
    assert (tmp_path / "eval" / "predictions.csv").exists()
    evaluate(eval_config(prime, weights.parent, tmp_path / "eval"))
    own = tmp_path / "eval" / weights.stem
    assert not (tmp_path / "eval" / "error_maps").exists() and (own / "error_maps").is_dir()
    with pytest.raises(InputError, match=f"pass the folder of one of its weights, such as {own}$"):
        read_evaluation(tmp_path / "eval")
    assert len(read_evaluation(own).rows) == 101


def test_weights_that_differ_only_in_the_suffix_have_a_folder_of_results_each(
    prime: Path, tmp_path: Path
) -> None:
    """As best.onnx beside best.safetensors: one of them replaced the results of the other."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for seed, name in enumerate(("best.safetensors", "best.ckpt", "last.safetensors")):
        write_weights(folder / name, seed)
    evaluate(eval_config(prime, folder, tmp_path / "eval"))
    results = json.loads((tmp_path / "eval" / "eval.json").read_text())["results"]
    digests = {Path(one["checkpoint"]).name: one["digest"] for one in results}
    for name, own in (("best.safetensors", "best_safetensors"), ("best.ckpt", "best_ckpt")):
        content = json.loads((tmp_path / "eval" / own / "eval.json").read_text())
        assert content["digest"] == digests[name]
    assert (tmp_path / "eval" / "last" / "predictions.csv").exists()


def test_other_classes_are_an_error_that_shows_the_difference(
    weights: Path, tmp_path: Path
) -> None:
    other = write_classes(tmp_path / "data", ["ant", "bee", "dog"], 2)
    with pytest.raises(InputError, match=r"missing: cat; unknown: dog"):
        evaluate(eval_config(other, weights, tmp_path / "eval"))


@pytest.mark.parametrize("kind", ["empty", "absent"])
def test_a_class_without_images_keeps_its_number_and_is_named(
    kind: str, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_classes(tmp_path / "data", list(NAMES), 4)
    evaluate(eval_config(data, weights, tmp_path / "all"))
    shutil.rmtree(data / "bee")
    if kind == "empty":
        (data / "bee").mkdir()
    capsys.readouterr()
    evaluate(eval_config(data, weights, tmp_path / "eval", num_classes=3))
    assert re.search(r"WARNING:.*no image of bee \(1 of 3 classes\)", capsys.readouterr().out)

    def rows(name: str) -> list[str]:
        return (tmp_path / name / "predictions.csv").read_text().splitlines()

    assert rows("eval") == [row for row in rows("all") if not row.startswith("bee/")]
    folder = tmp_path / "folder"  # of weights, each with classes of its own
    folder.mkdir()
    shutil.copy(weights, folder / "a.safetensors")
    write_weights(folder / "b.safetensors", class_names=("ant", "bee", "cat", "dog"))
    several = evaluate(eval_config(data, folder, tmp_path / "several")).evaluations
    assert {f.name: e and len(e.dataset.class_names) for f, e in several.items()} == {
        "a.safetensors": 3,
        "b.safetensors": 4,
    }


def test_depth_and_window_are_recorded_for_the_pages_unless_they_are_those_of_8_bits(
    prime: Path, weights: Path, tmp_path: Path
) -> None:
    evaluate(eval_config(prime, weights, tmp_path / "deep", depth=16, window="percentile:1,99"))
    content = json.loads((tmp_path / "deep" / "eval.json").read_text())
    assert (content["depth"], content["window"]) == (16, "percentile:1,99")
    evaluate(eval_config(prime, weights, tmp_path / "plain"))
    assert (
        not {"depth", "window"} & json.loads((tmp_path / "plain" / "eval.json").read_text()).keys()
    )


def test_the_report_says_that_the_weights_saw_the_images(
    prime: Path, weights: Path, tmp_path: Path
) -> None:
    """It called them validation images, also those of the training."""
    evaluate(eval_config(prime, weights, tmp_path / "new"))
    found = json.loads((tmp_path / "new" / "eval.json").read_text())
    page = write_report(tmp_path / "new").read_text(encoding="utf-8")
    assert "101 images" in page and "101 validation images" not in page
    assert "same_images_as" not in found and "same images;" not in page
    known = read_weights(weights)
    assert known.info is not None
    of = {"folder": "0" * 16, "pictures": 101, "fingerprint": found["data_fingerprint"]}
    for split, text in (
        ("train", "These are the images that the weights were trained on."),
        ("val", "The training run validated on these same images; if it chose the weights by"),
    ):
        seen = tmp_path / f"{split}.safetensors"
        save_weights(seen, known.state_dict, known.info, {}, data={split: of})
        evaluate(eval_config(prime, seen, tmp_path / split))
        content = json.loads((tmp_path / split / "eval.json").read_text())
        assert content["same_images_as"] == [split]
        assert text in write_report(tmp_path / split).read_text(encoding="utf-8")


def test_a_contradicting_variant_is_refused(prime: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`variant` is model_zoo, but .* weights of paper"):
        evaluate(eval_config(prime, weights, tmp_path / "eval", variant="model_zoo"))


def test_weights_that_give_nan_do_not_count_as_right(prime: Path, tmp_path: Path) -> None:
    model = build("densenet40", num_classes=3)
    state_dict = model.state_dict()
    state_dict["features.conv0.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state_dict, tmp_path / "nan.pth")
    flags: dict[str, Any] = {"net": "densenet40", "image_size": 16}
    with pytest.raises(InputError, match=r"nan\.pth: features\.conv0\.weight has nan or infinite"):
        evaluate(eval_config(prime, tmp_path / "nan.pth", tmp_path / "eval", **flags))


def test_a_bad_image_is_named_or_skipped_counted_and_told_by_the_exit_status(
    weights: Path, tmp_path: Path
) -> None:
    data_dir = write_classes(tmp_path / "data", list(NAMES), 3)
    (data_dir / "bee" / "001.png").write_bytes(b"")
    (data_dir / "bee" / "note.txt").write_text("a file that is no image is passed over")
    command = ("eval", "--data_dir", data_dir, "--pretrained", weights)
    refused = run_command(*command, cwd=tmp_path)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"densenet121: {data_dir / 'bee' / '001.png'}: ")
    skipped = run_command(*command, "--on_bad_image", "skip", "--output_dir", "out", cwd=tmp_path)
    assert skipped.returncode == 1
    assert "partial result: 1 image could not be read" in skipped.stdout
    assert "tot=8" in skipped.stdout
    content = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert content["complete"] is False
    assert [bad["path"] for bad in content["bad_images"]] == ["bee/001.png"]
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 1 + 8


@pytest.mark.parametrize(
    ("data_dir", "pretrained", "status", "message"),
    [
        ("nowhere", "w", 1, "there is no such folder"),
        ("empty", "w", 1, "no class folder"),
        ("one", "w", 1, "only one class folder"),
        ("hollow", "w", 1, "no image in its class folders"),
        ("data", "nowhere.ckpt", 1, "nowhere.ckpt: there is no such weights file"),
        ("data", "empty", 1, "no weights in this folder"),
        ("data", "text", 1, "damaged or not a safetensors file"),
        ("data", "other", 1, "has 1000 classes (without names)"),
        ("parent", "w", 2, "has train/ but no val/"),
    ],
)
def test_what_cannot_be_evaluated_gets_one_line(
    weights: Path, tmp_path: Path, data_dir: str, pretrained: str, status: int, message: str
) -> None:
    from densenet121.cli import main

    write_classes(tmp_path / "data", list(NAMES), 1)
    write_classes(tmp_path / "one", ["ant"], 1)
    for name in NAMES:
        (tmp_path / "hollow" / name).mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    write_classes(tmp_path / "parent" / "train", list(NAMES), 1)
    shutil.copy(weights, tmp_path / "w")
    (tmp_path / "text").write_text("hello")
    torch.save(build("densenet40", num_classes=1000).state_dict(), tmp_path / "other")
    arguments = ["eval", "--data_dir", str(tmp_path / data_dir)]
    arguments += ["--pretrained", str(tmp_path / pretrained), "--log_path", str(tmp_path / "log")]
    errors = _stderr_of(lambda: main(arguments))
    assert errors.status == status
    assert message in errors.line
    assert errors.line.startswith("densenet121: ")


class _Errors:
    def __init__(self, status: int, line: str) -> None:
        self.status, self.line = status, line


def _stderr_of(run: Any) -> _Errors:
    import io

    stream = io.StringIO()
    with contextlib.redirect_stderr(stream):
        status = run()
    (line,) = stream.getvalue().splitlines()
    return _Errors(status, line)


def stop_at(text: str) -> contextlib.AbstractContextManager[None]:
    """SIGTERM comes with the lines of the log that have a text."""
    return at_line(text, lambda: os.kill(os.getpid(), signal.SIGTERM))


@contextlib.contextmanager
def at_line(text: str, act: Callable[[], object]) -> Iterator[None]:
    """Something happens with the lines of the log that have a text."""

    class Act(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if text in record.getMessage():
                act()

    handler = Act()
    logging.getLogger("densenet121").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("densenet121").removeHandler(handler)


def test_sigterm_keeps_the_results_so_far(prime: Path, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in ("0-1_5.ckpt", "0-2_5.ckpt"):
        write_weights(folder / name)
    with stop_at("top5_correct"):
        result = evaluate(eval_config(prime, folder, tmp_path / "eval"))
    assert result.stopped and not result.complete
    content = json.loads((tmp_path / "eval" / "eval.json").read_text())
    assert content["complete"] is False
    assert [Path(one["checkpoint"]).name for one in content["results"]] == ["0-2_5.ckpt"]


def test_a_signal_ends_the_resampling_of_groups_and_leaves_the_results_before(
    prime: Path, weights: Path, tmp_path: Path
) -> None:
    """Of many images and classes it took minutes, in which Ctrl-C did nothing."""
    rows = [(path, path.parent.name) for path in sorted(prime.rglob("*.png"))]
    table = "".join(f"{path},{name},{number}\n" for number, (path, name) in enumerate(rows))
    (tmp_path / "list.csv").write_text(f"path,label,patient\n{table}")
    config = eval_config(tmp_path / "list.csv", weights, tmp_path / "out", group="patient")
    evaluate(config)
    before = (tmp_path / "out" / "eval.json").read_bytes()
    with stop_at("resample the groups of patient"):
        assert evaluate(config).stopped
    assert (tmp_path / "out" / "eval.json").read_bytes() == before


@pytest.mark.parametrize("end", ["stopped", "full disk"])
def test_an_evaluation_that_ends_early_leaves_the_one_before_whole(
    end: str, prime: Path, weights: Path, tmp_path: Path
) -> None:
    """run.json was of the second one, and the report had its settings with the other's counts."""
    folder = tmp_path / "out"
    evaluate(eval_config(prime, weights, folder))
    kept = ("run.json", "eval.json", "predictions.csv")
    before = [(folder / name).read_bytes() for name in kept]
    other = eval_config(prime, write_weights(tmp_path / "other.safetensors"), folder, tta="flip")
    if end == "stopped":
        with stop_at("images of 3 classes"):
            assert evaluate(other).stopped
    else:
        size = (folder / "predictions.csv").stat().st_size
        assert size > (folder / "run.json").stat().st_size
        with no_file_beyond(size - 1), pytest.raises(OSError, match="File too large"):
            evaluate(other)
    assert [(folder / name).read_bytes() for name in kept] == before
    assert evaluate(other).complete
    assert json.loads((folder / "run.json").read_text())["settings"]["tta"] == "flip"


def test_weights_of_a_folder_of_which_none_was_evaluated_leave_the_results_before(
    prime: Path, weights: Path, tmp_path: Path
) -> None:
    """An empty table replaced them."""
    folder = tmp_path / "out"
    evaluate(eval_config(prime, weights, folder))
    kept = ("run.json", "eval.json", "predictions.csv")
    before = [(folder / name).read_bytes() for name in kept]
    with stop_at("images of 3 classes"):
        assert evaluate(eval_config(prime, weights.parent, folder)).stopped
    assert [(folder / name).read_bytes() for name in kept] == before


def test_a_folder_of_weights_of_which_none_can_be_used_leaves_the_results_before(
    prime: Path, weights: Path, tmp_path: Path
) -> None:
    """A table of errors replaced them, and predictions.csv was removed."""
    (tmp_path / "other").mkdir()
    other = write_weights(tmp_path / "other" / "best.safetensors", 1, class_names=("a", "b", "c"))
    folder = tmp_path / "out"
    evaluate(eval_config(prime, weights, folder))
    kept = ("run.json", "eval.json", "predictions.csv")
    before = [(folder / name).read_bytes() for name in kept]
    assert not evaluate(eval_config(prime, other.parent, folder)).complete
    assert [(folder / name).read_bytes() for name in kept] == before
    assert not evaluate(eval_config(prime, other.parent, tmp_path / "new")).complete
    results = json.loads((tmp_path / "new" / "eval.json").read_text())["results"]
    assert [list(result) for result in results] == [["checkpoint", "error"]]


@pytest.mark.parametrize("line", ["images of 3 classes", "load model"])
@pytest.mark.parametrize("alone", [True, False])
def test_the_digest_is_of_the_weights_that_were_evaluated_though_the_file_is_replaced(
    line: str, alone: bool, prime: Path, weights: Path, tmp_path: Path
) -> None:
    """The card took the counts of weights that a run had replaced for those of the new ones."""
    source = tmp_path / "source"
    source.mkdir()
    shutil.copyfile(weights, source / "w.safetensors")
    other = write_weights(tmp_path / "other.safetensors", class_names=NAMES, seed=7)
    assert file_digest(other) != file_digest(weights)
    given = source / "w.safetensors" if alone else source
    with at_line(line, lambda: shutil.copyfile(other, source / "w.safetensors")):
        found = evaluate(eval_config(prime, given, tmp_path / "out"))
    file = tmp_path / "out" / ("eval.json" if alone else "w/eval.json")
    told = json.loads(file.read_text())
    for content in (weights, other):
        evaluate(eval_config(prime, content, tmp_path / content.stem))
        same = json.loads((tmp_path / content.stem / "eval.json").read_text())
        if same["checkpoint_sha256"] == told["checkpoint_sha256"]:
            assert same["digest"] == told["digest"]
            assert same["loss"] == told["loss"]
            break
    else:
        raise AssertionError("neither of the files")
    assert found.complete
