"""predict says what eval says, of images in any form."""

import csv
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densenet121.commands.predict import find, writer
from densenet121.datasets.decoding import read_image
from densenet121.engine.evaluate import evaluate
from densenet121.inference.predictor import ImageInput, Predictor
from densenet121.tasks import MultiLabel
from densenet121.tasks.multi_label.answers import Findings
from densenet121.tasks.single_label.predictions import Prediction
from densenet121.utils.errors import InputError

from helpers.commands import run_command
from helpers.weights import NAMES, eval_config, write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")


def test_predict_gives_the_predictions_of_eval_bit_for_bit(
    image_folder: Path, weights: Path, tmp_path: Path
) -> None:
    val = image_folder / "val"
    evaluation = next(
        iter(evaluate(eval_config(val, weights, tmp_path / "e")).evaluations.values())
    )
    assert evaluation is not None
    sources = find([str(val)])
    assert [s.name for s in sources] == [str(val / p) for p in evaluation.dataset.paths]
    predictor = Predictor(weights, batch_size=7, amp="fp32")
    answers = predictor.predict([s.image for s in sources], top_k=2)
    columns = evaluation.scores.columns
    assert [a.classes[0] for a in answers] == [NAMES[k] for k in columns["predicted"]]
    assert [a.probabilities[0] for a in answers] == list(columns["probability"])


def test_an_image_in_any_form_gives_the_same_answer(image_folder: Path, weights: Path) -> None:
    path = image_folder / "val" / "ant" / "000.png"
    forms: list[ImageInput] = [
        path,
        str(path),
        path.read_bytes(),
        read_image(path),
        Image.open(path),
    ]
    predictor = Predictor(weights)
    assert len({predictor.predict([form])[0] for form in forms}) == 1


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), 7]
)
def test_what_is_no_image_is_refused_by_what_it_is(wrong: object, weights: Path) -> None:
    with pytest.raises(InputError, match=r"array|image must be"):
        Predictor(weights).predict([wrong])  # type: ignore[list-item]


def test_the_three_formats_tell_the_same(image_folder: Path, weights: Path) -> None:
    folder = image_folder / "val" / "bee"
    flags = ["--pretrained", weights, "--workers", 0, "--top_k", 3]
    given = {
        kind: run_command("predict", folder, *flags, "--format", kind)
        for kind in ("table", "jsonl", "csv")
    }
    assert all(run.returncode == 0 and run.stderr == "" for run in given.values())
    lines = [json.loads(line) for line in given["jsonl"].stdout.splitlines()]
    rows = list(csv.DictReader(io.StringIO(given["csv"].stdout)))
    assert [line["path"] for line in lines] == [str(folder / f"{i:03d}.png") for i in range(7)]
    assert [(row["path"], row["class"]) for row in rows] == [
        (line["path"], top["class"]) for line in lines for top in line["top"]
    ]
    # To the last digit: images whose probabilities round to the same one keep their order.
    assert [float(row["probability"]) for row in rows] == [
        top["probability"] for line in lines for top in line["top"]
    ]
    for line, text in zip(lines, given["table"].stdout.splitlines(), strict=True):
        assert text.split()[:2] == [line["path"], line["predicted"]]
        assert abs(sum(top["probability"] for top in line["top"]) - 1) < 1e-5


def test_the_decision_follows_from_the_probability_and_threshold_of_a_csv_row() -> None:
    """With six decimals both labels had 0.000000 and 0.000000, and one was positive."""
    found = Findings(("rare", "rarer"), (3.1e-7, 2.9e-7), (3e-7, 3e-7))
    out = io.StringIO()
    write = writer("csv", out, 1, MultiLabel().answer_columns)
    write("a.png", found)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [(float(row["probability"]), float(row["threshold"])) for row in rows] == [
        (3.1e-7, 3e-7),
        (2.9e-7, 3e-7),
    ]
    for row in rows:
        assert (float(row["probability"]) >= float(row["threshold"])) == (row["positive"] == "1")


def test_images_of_a_folder_without_an_extension_are_not_left_out_silently(
    image_folder: Path, tmp_path: Path
) -> None:
    """As PACS write DICOM: IM000001, or 1.2.840.10008.7; scanners write 7.IMA, and an index."""
    image = (image_folder / "val" / "ant" / "000.png").read_bytes()
    study = tmp_path / "study"
    study.mkdir()
    for name in ("1.2.840.7", "7.IMA", "8.dic", "DICOMDIR"):
        (study / name).write_bytes(bytes(128) + b"DICM" + bytes(9))
    (study / "IM\n1").write_bytes(image)
    (study / "README").write_bytes(b"not an image")
    (study / ".hidden").write_bytes(image)
    (study / "notes.txt").write_bytes(image)
    os.mkfifo(study / "pipe")
    left_out = r"are left out \(4, such as .*1\.2\.840\.7\); pass them as files"
    with pytest.raises(InputError, match=rf"no images .*; files that begin like .* {left_out}"):
        find([str(study)])
    (study / "a.png").write_bytes(image)
    said: list[str] = []
    (found,) = find([str(study)], note=said.append)
    assert found.name == str(study / "a.png") and len(said) == 1
    assert re.search(left_out, said[0])
    (given,) = find([str(study / "1.2.840.7")], note=said.append)
    assert given.name.endswith("1.2.840.7") and len(said) == 1


def test_standard_input_is_an_image_or_a_list_of_paths(image_folder: Path) -> None:
    path = image_folder / "val" / "ant" / "000.png"
    (image,) = find(["-"], io.BytesIO(path.read_bytes()))
    assert (image.name, image.image) == ("-", path.read_bytes())
    listed = find(["-"], io.BytesIO(f"{path}\r\n\n{path}".encode()))
    assert [source.image for source in listed] == [path, path]


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_on_standard_input_is_read_in_the_codings_of_lists_in_files(coding: str) -> None:
    listed = find(["-"], io.BytesIO("/images/\u00fc.png\r\n/b.png\r\n".encode(coding)))
    assert [source.image for source in listed] == [Path("/images/\u00fc.png"), Path("/b.png")]
    (latin,) = find(["-"], io.BytesIO(b"/\xfc.png\n"))
    assert latin.name == "/\udcfc.png"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a.png\0b.png\0", "is no image of a known format, and no list of paths"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1", "is no image of a known format, and no list"),
        (b"<!DOCTYPE html><html>", "is a web page saved in place of the file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-LFS pointer"),
    ],
)
def test_other_data_on_standard_input_is_no_list_of_paths(data: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=f"^standard input: {reason}"):
        find(["-"], io.BytesIO(data))


def test_a_bad_image_stops_or_is_skipped_and_named(
    image_folder: Path, weights: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    good = image_folder / "val" / "ant" / "000.png"
    flags = [bad, good, "--pretrained", weights, "--workers", 0, "--format", "jsonl"]
    stopped = run_command("predict", *flags)
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert stopped.stderr.count("\n") == 1 and str(bad) in stopped.stderr
    skipped = run_command("predict", *flags, "--on_bad_image", "skip")
    assert skipped.returncode == 1
    reason = "not a readable image (not an image (no known format))"
    assert skipped.stderr == f"densenet121: {bad}: {reason}\n"
    assert [json.loads(line)["path"] for line in skipped.stdout.splitlines()] == [str(good)]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(["nowhere"], "nowhere"), ([], "INPUTS"), (["x", "--top_k", "0"], "top_k")],
)
def test_a_wrong_call_is_one_line(arguments: list[str], word: str, weights: Path) -> None:
    run = run_command("predict", *arguments, "--pretrained", weights)
    assert run.returncode in (1, 2) and run.stdout == ""
    assert run.stderr.count("\n") == 1 and word in run.stderr


def test_coverage_without_calibration_is_refused(image_folder: Path, weights: Path) -> None:
    with pytest.raises(InputError, match="calibrate"):
        Predictor(weights).predict([image_folder / "val" / "ant" / "000.png"], coverage=0.9)


@pytest.mark.parametrize(
    ("amp", "advice"), [("bf16", "try `amp` fp32$"), ("fp32", "damaged or their training diverged")]
)
def test_infinite_logits_are_refused(amp: str, advice: str, weights: Path) -> None:
    predictor = Predictor(weights, amp=amp)
    torch.nn.init.constant_(predictor.classifier.model.get_parameter("classifier.bias"), torch.inf)
    with pytest.raises(InputError, match=f"infinite logits; .*{advice}"):
        predictor.predict([np.zeros((9, 9, 3), np.uint8)])


def test_a_name_is_no_line_of_the_table(tmp_path: Path) -> None:
    out = io.StringIO()
    answer = Prediction(("ant\x1b[2K",), (0.5,))
    writer("table", out, 1, ())("a.jpg\nb.jpg  bee 99.00 %", answer)
    assert out.getvalue() == r"a.jpg\nb.jpg  bee 99.00 %  ant\x1b[2K 50.00 %" + "\n"


def test_previews_of_a_system_are_not_among_the_images_of_a_folder(tmp_path: Path) -> None:
    for path in ("a.jpg", "@eaDir/a.jpg/SYNOFILE_THUMB_M.jpg", "x/.b/c.jpg", "x/b.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    names = [Path(source.name) for source in find([str(tmp_path)])]
    assert names == [tmp_path / "a.jpg", tmp_path / "x/b.jpg"]
