"""The report: its numbers against hand calculation, and what a hostile or broken folder does to it.

Folders are made here; 8 x 8 images are enough for thumbnails.
"""

import base64
import csv
import io
import json
import math
import os
import re
import shutil
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from densenet121.datasets.decoding import decode, read_image
from densenet121.pages.thumbnails import thumbnail
from densenet121.report import write_report
from densenet121.report.training import epochs_done, training_seconds
from densenet121.runs.read import read_run
from densenet121.tasks.single_label.predictions import Row as Prediction
from densenet121.tasks.single_label.scores import compare, wilson_interval
from densenet121.utils.errors import InputError

Row = tuple[str, str, str, float, int]

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = "<script>alert('x')</script>\"&amp;$\\frac{$"


class Page(HTMLParser):
    """Tags, attributes and visible text of a page, as a browser would find them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def metrics(epochs: int, steps: int, *, evaluated: bool = True, rate: float = 50.0) -> list[Any]:
    rows: list[Any] = []
    for step in range(epochs * steps):
        epoch = step // steps
        rows.append({
            "kind": "train", "epoch": epoch, "step": step, "loss": 2.0 / (1 + step),
            "lr": 0.1, "images_per_second": rate, "data_wait": 0.25,
        })  # fmt: skip
        if evaluated and step % steps == steps - 1:
            rows.append({
                "kind": "eval", "epoch": epoch, "step": step, "loss": 0.5,
                "top1_correct": 6 + epoch, "top5_correct": 9, "total": 10, "top1": 0.6, "top5": 0.9,
            })  # fmt: skip
    return rows


def write_metrics(folder: Path, rows: Sequence[Any], end: str = "\n") -> None:
    text = "\n".join(json.dumps(row) for row in rows) + end
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")


def write_settings(folder: Path, **changes: Any) -> None:
    record = {
        "command": "train",
        "settings": {"lr": 0.1, "max_epoch": 3, "pretrained": None, "lr_epochs": [30, 60]},
        "versions": {"densenet121": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "device": "cpu",
        "git_commit": "92d63d4",
        "class_names": [],
        "data": {"train": {"folder": "/t", "pictures": 40, "fingerprint": "f00d"}, "val": None},
        "started": "2026-01-31T12:00:00",
        "threads": 2,
    }
    (folder / "run.json").write_text(json.dumps(record | changes), encoding="utf-8")


def write_evaluation(
    folder: Path, names: Sequence[str], rows: Sequence[Row], data_dir: Path, **changes: Any
) -> None:
    correct = sum(label == predicted for _, label, predicted, _, _ in rows)
    found = {
        "checkpoint": "/runs/best.safetensors", "digest": "sha256:beef", "top1_correct": correct,
        "top5_correct": len(rows), "total": len(rows), "top1": 0, "top5": 0, "loss": 0.25,
        "class_names": list(names), "data_dir": str(data_dir), "bad_images": [],
    }  # fmt: skip
    (folder / "eval.json").write_text(json.dumps(found | changes), encoding="utf-8")
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Prediction._fields)
        writer.writerows(rows)


def random_rows(names: Sequence[str], count: int, accuracy: float, seed: int = 1) -> list[Row]:
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for number in range(count):
        label, other = rng.integers(len(names), size=2)
        predicted = label if rng.random() < accuracy else other
        path = f"{names[label]}/{number}.png"
        rows.append((path, names[label], names[predicted], 0.5 + number / (3 * count), 2))
    return rows


def report(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("command", "of", "expected"),
    [
        ("eval", "5a5a", "9 images, 2 of which could not be read"),
        ("train", "5a5a", "9 validation images, 2 of which could not be read"),
        ("train", "0b0b", "9 validation images"),  # the results are of other images
    ],
)
def test_the_headline_says_how_many_images_are_in_no_figure(
    tmp_path: Path, command: str, of: str, expected: str
) -> None:
    val = {"folder": "/v", "pictures": 9, "fingerprint": "5a5a"}
    write_settings(tmp_path, command=command, data={"val": val})
    bad = [{"path": f"a/{number}.png", "error": "empty"} for number in range(2)]
    rows = random_rows(["a", "b"], 7, accuracy=0.5)
    write_evaluation(tmp_path, ["a", "b"], rows, tmp_path, bad_images=bad, data_fingerprint=of)
    (facts,) = re.findall(r"<header>.*<p>(.*)</p></header>", (write_report(tmp_path)).read_text())
    assert facts.split(" \u00b7 ")[-1] == expected


def test_numbers_of_the_headline_are_those_of_a_hand_calculation(tmp_path: Path) -> None:
    rows = [("a/x.png", "a", "a", 0.9, 1)] * 1234 + [("a/y.png", "a", "b", 0.8, 2)] * 66
    write_settings(tmp_path)
    write_metrics(tmp_path, metrics(epochs=3, steps=4))
    write_evaluation(tmp_path, [*"abcdef"], rows, tmp_path)
    page = report(tmp_path)
    assert "94.92 % 1234 of 1300" in page.text  # 1234 / 1300 = 0.949230...
    # Wilson: centre (p + z2 / 2n) / (1 + z2 / n), z = 1.96: 0.936 to 0.960.
    assert "95 % interval 93.59 to 95.99 %" in page.text
    assert "100.00 % 1300 of 1300" in page.text  # top-5
    assert "Loss 0.2500" in page.text
    assert "Epochs 3 of 3 12 steps" in page.text
    # 3 epochs of 40 images at 50 a second.
    assert "Training time 2.4 s" in page.text
    assert "Images/s 50 median 25.0 % waiting for data" in page.text
    assert "started 2026-01-31T12:00:00" in page.text and "best.safetensors" in page.text
    assert "pretrained none" in page.text and "lr_epochs [30, 60]" in page.text
    for name in ("curves.png", "confusion.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".tmp") == []


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # From scipy.stats.binomtest(correct, total).proportion_ci(method="wilson").
    [(8, 10, 0.490162, 0.943318), (0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0), (0, 0, 0, 1)],
)
def test_wilson_interval(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 300])
def test_confusions_equal_scikit_learns(classes: int) -> None:
    names = [f"class {number}" for number in range(classes)]
    rows = random_rows(names, 900, 0.6)
    found = compare([Prediction(*row) for row in rows], names)
    matrix = np.zeros((classes, classes), dtype=np.int64)
    for pair in found.pairs:
        matrix[pair.label, pair.predicted] = pair.images
    labels, predicted = [row[1] for row in rows], [row[2] for row in rows]
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, predicted, labels=names))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=names, zero_division=0
    )
    assert [one.precision for one in found.classes] == list(precision)
    assert [one.recall for one in found.classes] == list(recall)
    assert [one.f1 for one in found.classes] == list(f1)
    assert [one.support for one in found.classes] == list(support)
    off_diagonal = matrix - np.diag(np.diag(matrix))
    assert found.confused[0].images == off_diagonal.max()
    assert sum(pair.images for pair in found.confused) == off_diagonal.sum()


def test_tables_of_two_classes_are_those_of_a_hand_calculation(tmp_path: Path) -> None:
    rows = (
        [("cat/1.png", "cat", "cat", 0.9, 1)] * 3
        + [("cat/2.png", "cat", "dog", 0.8, 2)]
        + [("dog/1.png", "dog", "dog", 0.9, 1)] * 4
        + [("dog/2.png", "dog", "cat", 0.7, 2)] * 2
    )
    write_evaluation(tmp_path, ["cat", "dog"], rows, tmp_path)
    page = report(tmp_path)
    # cat: 3 of 5 predicted and 3 of 4 labelled are right, 2 * 0.6 * 0.75 / 1.35 = 0.6667.
    assert "cat 0 60.00 % 75.00 % 66.67 % 4" in page.text
    assert "dog 1 80.00 % 66.67 % 72.73 % 6" in page.text
    assert "dog cat 2 33.33 % cat dog 1 25.00 %" in page.text  # most confused first
    assert "Top-5" not in page.text  # 100 % for any network of two classes
    assert "metrics.jsonl is not in the folder" in page.text
    assert "run.json is not in the folder" in page.text
    assert not (tmp_path / "curves.png").exists()


def test_a_class_that_is_never_predicted_has_a_dash_for_its_precision(tmp_path: Path) -> None:
    """Of no answers none is right and none is wrong."""
    rows = [("cat/1.png", "cat", "cat", 0.9, 1)] * 3 + [("dog/1.png", "dog", "cat", 0.7, 2)]
    write_evaluation(tmp_path, ["ant", "cat", "dog"], rows, tmp_path)
    page = report(tmp_path)
    assert "ant 0 - - - 0 cat 1 75.00 % 100.00 % 85.71 % 3 dog 2 - 0.00 % 0.00 % 1" in page.text
    assert "precision 37.50 %" in page.text
    assert "1 of 2 classes is never predicted and is 0 in the mean precision." in page.text


def test_a_thousand_classes_stay_a_small_page(tmp_path: Path) -> None:
    names = [f"n{number:08d}" for number in range(1000)]
    write_evaluation(tmp_path, names, random_rows(names, 700, 0.7), tmp_path / "gone")
    path = write_report(tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 2_000_000
    assert "All 1000 classes" in page.text and "20 most confused pairs" in page.text
    assert "n00000999 999" in page.text
    assert page.text.count("no longer exists") == 24


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    folder = tmp_path / "<i>run"
    folder.mkdir()
    names = [
        HOSTILE,
        "$\\nosuch{",
        "line\nbreak",
        "\udcff",
        "<img src=x onerror=alert(1)>",
        "\u732b",
    ]
    rows: list[Row] = [
        (f"{HOSTILE}/<i>.png", HOSTILE, names[4], 0.9, 2),
        ("x.png", names[1], names[2], 0.8, 3),
        ("http://example.org/x.png", names[5], HOSTILE, 0.7, 2),
    ]
    write_settings(
        folder,
        settings={f"</td>{HOSTILE}": HOSTILE, "pretrained": "https://example.org/w.pth"},
        versions={HOSTILE: [HOSTILE]},
        device=HOSTILE,
        command=HOSTILE,
        started=HOSTILE,
        git_commit=HOSTILE,
        data={HOSTILE: {HOSTILE: HOSTILE}, "train": {"pictures": HOSTILE}, "val": HOSTILE},
    )
    write_metrics(folder, metrics(2, 2))
    bad = [{"path": HOSTILE, "error": HOSTILE}]
    write_evaluation(folder, names, rows, tmp_path, checkpoint=HOSTILE, bad_images=bad)
    html = write_report(folder).read_text(encoding="utf-8")
    page = Page(html)
    assert page.text.count("<script>alert('x')</script>") >= 10  # shown, as text
    tags = (
        "body div figcaption figure h1 h2 h3 head header html img main meta p section span b "
        "style table tbody td th thead title tr"
    )
    assert " ".join(sorted(set(page.tags))) == " ".join(sorted(tags.split(" ")))
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "\\udcff" in page.text  # a byte that is not UTF-8


def test_page_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "x.png")
    write_settings(tmp_path)
    write_metrics(tmp_path, metrics(2, 2))
    write_evaluation(tmp_path, ["a", "b"], [("x.png", "a", "b", 0.9, 2)], tmp_path)
    html = write_report(tmp_path).read_text(encoding="utf-8")
    outside_data = re.sub(r"base64,[A-Za-z0-9+/=]*", "", html)
    assert not re.search(r"//|url\(|@import", outside_data)
    loaded = [value for name, value in Page(html).attributes if name in ("src", "href", "srcset")]
    assert len(loaded) == 4  # three plots and a thumbnail
    assert all(value.startswith(("data:image/png;", "data:image/jpeg;")) for value in loaded)
    assert "default-src 'none'" in html


def test_same_folder_gives_same_page(tmp_path: Path) -> None:
    write_metrics(tmp_path, metrics(2, 2))
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_calibration_error_is_that_of_a_hand_calculation(tmp_path: Path) -> None:
    # Bins of 1/15: 0.9 x 4 with 3 right is off by 0.15, 0.5 x 1 and right by 0.5.
    rows = [("x", "a", "a", 0.9, 1)] * 3 + [("y", "b", "a", 0.9, 2), ("z", "b", "b", 0.5, 1)]
    write_metrics(tmp_path, metrics(1, 2))
    write_evaluation(tmp_path, ["a", "b"], rows, tmp_path)
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert f"Expected calibration error {100 * (4 * 0.15 + 0.5) / 5:.2f} %" in html  # 22.00 %
    with Image.open(tmp_path / "reliability.png") as plot:
        assert plot.width > 500


def test_the_error_of_calibrated_weights_is_said_to_be_before_the_temperature(
    tmp_path: Path,
) -> None:
    rows = [("x", "a", "a", 0.9, 1)] * 3 + [("y", "b", "a", 0.9, 2), ("z", "b", "b", 0.5, 1)]
    write_metrics(tmp_path, metrics(1, 2))
    measured = {"before": 0.3, "after": 0.0123, "pictures": 40}
    stored = {"temperature": 2.0, "note": {"expected_calibration_error": measured}}
    write_evaluation(tmp_path, ["a", "b"], rows, tmp_path, calibration=stored)
    text = report(tmp_path).text
    assert "calibration error 22.00 %, before the temperature 2 of these weights" in text
    assert "calibrate measured 1.23 % on 40 held-out images" in text
    assert "corrects that" not in text
    # Weights of an older version do not record what was measured.
    write_evaluation(tmp_path, ["a", "b"], rows, tmp_path, calibration={"temperature": 2.0})
    text = report(tmp_path).text
    assert "before the temperature 2 of these weights" in text and "calibrate measured" not in text


def test_cut_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    write_metrics(tmp_path, metrics(2, 3), end='\n{"kind": "train", "epo')
    page = report(tmp_path)
    assert "The last line of metrics.jsonl is incomplete" in page.text
    assert "6 training rows and 2 evaluations" in page.text
    assert "70.00 % 7 of 10" in page.text and "after epoch 2" in page.text  # last validation


def test_diverged_loss_is_plotted_as_far_as_it_goes(tmp_path: Path) -> None:
    rows = metrics(2, 4)
    for row, loss in zip(
        rows[3:], (math.nan, math.inf, None, 1e308, 1e38, -math.inf), strict=False
    ):
        row["loss"] = loss
    write_metrics(tmp_path, rows)
    assert "8 training rows and 2 evaluations" in report(tmp_path).text


def test_resumed_run_counts_each_step_once(tmp_path: Path) -> None:
    rows = metrics(3, 4)
    # Killed in the third epoch while writing a line, then resumed after the first one.
    text = "\n".join(json.dumps(row) for row in rows[:12]) + '\n{"kind": "tr'
    text += "\n".join(json.dumps(row | {"lr": 0.2}) for row in rows[5:]) + "\n"
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    run = read_run(tmp_path)
    assert [row.step for row in run.train] == list(range(12))
    # Step 4 is the first attempt's: the second's was written onto the cut line.
    assert [row.lr for row in run.train] == [0.1] * 5 + [0.2] * 7
    assert [row.epoch for row in run.results.validations] == [0, 1, 2]
    assert len(run.notes) == 1 and "(line 13)" in run.notes[0]


def test_a_run_resumed_with_other_steps_an_epoch_keeps_its_time_and_epochs(tmp_path: Path) -> None:
    write_settings(tmp_path)
    # Two epochs of 4 steps, then, on two ranks, one of 2 steps at twice the speed.
    later = [r for r in metrics(3, 2, rate=100.0) if r["epoch"] == 2]
    write_metrics(tmp_path, [*metrics(2, 4), *later])
    run = read_run(tmp_path)
    assert [row.step for row in run.train] == [*range(8), 4, 5]
    assert [row.epoch for row in run.results.validations] == [0, 1, 2]
    assert epochs_done(run, run.train) == [*np.arange(0.25, 2.25, 0.25), 2.5, 3.0]
    assert training_seconds(run) == pytest.approx(2 * 40 / 50 + 40 / 100)
    assert "Epochs 3 of 3 6 steps" in report(tmp_path).text


def test_time_and_epochs_of_a_run_that_was_stopped(tmp_path: Path) -> None:
    write_settings(tmp_path)
    write_metrics(tmp_path, metrics(3, 4)[:12])  # 2 epochs, their evaluations, 2 steps of 4
    run = read_run(tmp_path)
    assert epochs_done(run, run.train) == list(np.arange(0.25, 2.75, 0.25))
    assert training_seconds(run) == pytest.approx(2.5 * 40 / 50)
    assert "Epochs 2.5 of 3 10 steps" in report(tmp_path).text


def test_time_counts_the_images_of_the_steps_and_not_those_that_fill_none(tmp_path: Path) -> None:
    # 40 images: one step of 32 that leaves out 8, or a second one of those 8.
    for steps, seconds in ((1, 2 * 32 / 50), (2, 2 * 40 / 50)):
        write_settings(tmp_path)
        record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
        record |= {"steps_per_epoch": steps, "world_size": 2}
        record["settings"] |= {"per_batch_size": 8, "gradient_accumulation": 2}
        (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
        write_metrics(tmp_path, metrics(2, steps))
        assert training_seconds(read_run(tmp_path)) == pytest.approx(seconds)
    # The step of 32 takes its share of the time, at its own speed.
    rows = metrics(2, 2)
    for row in rows:
        row["images_per_second"] = 64.0 if row["step"] % 2 == 0 else 8.0
    write_metrics(tmp_path, rows)
    assert training_seconds(read_run(tmp_path)) == pytest.approx(2 * (32 / 64 + 8 / 8))


def test_the_median_speed_of_an_even_number_of_rows_is_between_the_middle_two(
    tmp_path: Path,
) -> None:
    rows = metrics(1, 4)
    for row, speed in zip(rows, (10.0, 400.0, 100.0, 20.0), strict=False):
        row["images_per_second"] = speed
    write_metrics(tmp_path, rows)
    assert "Images/s 60 median" in report(tmp_path).text


def test_run_stopped_in_its_first_epoch(tmp_path: Path) -> None:
    write_metrics(tmp_path, metrics(1, 4, evaluated=False)[:2])
    page = report(tmp_path)
    assert "Epochs in the first 2 steps" in page.text
    assert "Top-1" not in page.text and "Training time" not in page.text


def test_confident_errors_come_first_with_their_images(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "a").mkdir(parents=True)
    Image.new("RGB", (300, 200), "red").save(data / "a" / "big.png")
    Image.new("CMYK", (8, 8)).save(data / "a" / "cmyk.jpg")
    (data / "a" / "broken.png").write_bytes(PNG + b"nothing")
    rows: list[Row] = [
        ("a/broken.png", "a", "b", 0.6, 2),
        ("a/big.png", "a", "b", 0.99, 2),
        ("a/right.png", "a", "a", 1.0, 1),
        ("a/cmyk.jpg", "a", "b", 0.7, 2),
    ]
    write_evaluation(tmp_path, ["a", "b"], rows, data)
    page = report(tmp_path)
    positions = [page.text.index(name) for name in ("a/big.png", "a/cmyk.jpg", "a/broken.png")]
    assert positions == sorted(positions) and "a/right.png" not in page.text
    assert "b 99.00 % label a, rank 2 a/big.png" in page.text
    assert "not readable" in page.text
    sources = [value for name, value in page.attributes if name == "src"]
    assert len([source for source in sources if source.startswith("data:image/jpeg")]) == 2


def test_thumbnail_is_small_and_of_this_image(tmp_path: Path) -> None:
    Image.new("RGB", (600, 300), (200, 10, 10)).save(tmp_path / "x.png")
    jpeg, reason = thumbnail(tmp_path, "x.png", decode)
    assert jpeg is not None and not reason
    (tmp_path / "out.jpg").write_bytes(jpeg)
    with Image.open(tmp_path / "out.jpg") as small:
        assert (small.format, small.size) == ("JPEG", (128, 64))
        np.testing.assert_allclose(np.asarray(small).mean((0, 1)), (200, 10, 10), atol=3)


def test_thumbnail_opens_nothing_outside_the_data_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    os.mkfifo(data / "pipe.png")
    for path in ("../secret.png", "a/../../secret.png", str(tmp_path / "secret.png")):
        assert thumbnail(data, path, decode) == (None, "outside the data folder")
    assert thumbnail(data, "pipe.png", decode) == (
        None,
        "not a file",
    )  # and does not wait for a writer
    assert thumbnail(data, "nul\0.png", decode) == (None, "not readable")
    assert thumbnail(data, "none.png", decode) == (None, "no longer exists")
    assert thumbnail(None, "none.png", decode) == (None, "data folder unknown")


def small_image(page: Page) -> NDArray[np.uint8]:
    """The first thumbnail of a page, grey."""
    source = next(value for name, value in page.attributes if value.startswith("data:image/jpeg"))
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as image:
        return np.asarray(image.convert("L"))


@pytest.mark.parametrize("where", ["eval.json", "run.json"])
def test_images_of_more_than_8_bits_are_shown_through_the_window_of_the_run(
    where: str, tmp_path: Path
) -> None:
    """Pillow cuts 16 bits at 255: the image was white."""
    samples = np.linspace(0, 4095, 32 * 32).reshape(32, 32)
    data = tmp_path / "data" / "a"
    data.mkdir(parents=True)
    Image.fromarray(samples.astype(np.uint16)).save(data / "x.png")
    write_evaluation(tmp_path, ["a", "b"], [("a/x.png", "a", "b", 0.9, 2)], data.parent)
    recorded = {"depth": 16, "window": "0,4095"}
    if where == "run.json":  # of a training run, which knows what `pretrained` recorded
        (tmp_path / where).write_text(json.dumps({"command": "train", "settings": recorded}))
    else:
        content = json.loads((tmp_path / where).read_text())
        (tmp_path / where).write_text(json.dumps(content | recorded))
    np.testing.assert_allclose(small_image(report(tmp_path)), samples / 4095 * 255, atol=4)


def test_images_of_16_bits_without_a_window_are_shown_by_their_high_byte(tmp_path: Path) -> None:
    samples = np.linspace(0, 65535, 32 * 32).reshape(32, 32)
    data = tmp_path / "data" / "a"
    data.mkdir(parents=True)
    Image.fromarray(samples.astype(np.uint16)).save(data / "x.png")
    write_evaluation(tmp_path, ["a", "b"], [("a/x.png", "a", "b", 0.9, 2)], data.parent)
    np.testing.assert_allclose(small_image(report(tmp_path)), samples / 257, atol=4)


def test_dicom_is_shown(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs densenet121[dicom]")
    data = tmp_path / "data" / "a"
    data.mkdir(parents=True)
    file = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"
    shutil.copy(file, data / "x.dcm")
    write_evaluation(tmp_path, ["a", "b"], [("a/x.dcm", "a", "b", 0.9, 2)], data.parent)
    page = report(tmp_path)
    assert "not readable" not in page.text
    np.testing.assert_allclose(small_image(page), read_image(file)[:, :, 0], atol=25)


@pytest.mark.parametrize("name", ["val.csv", "val.tsv", "val.txt"])
def test_images_beside_the_list_that_names_them_are_shown(name: str, tmp_path: Path) -> None:
    """As in lists of `split`; a path that only predictions.csv has is not opened."""
    lists = tmp_path / "lists"
    lists.mkdir()
    for image in ("seen", "secret"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{image}.png")
    mark = {"val.csv": ",", "val.tsv": "\t", "val.txt": " "}[name]
    (lists / name).write_text(f"path{mark}label\n../seen.png{mark}a\n", encoding="utf-8")
    rows: list[Row] = [("../seen.png", "a", "b", 0.9, 2), ("../secret.png", "a", "b", 0.8, 2)]
    write_evaluation(tmp_path, ["a", "b"], rows, lists)
    record = {"command": "eval", "data": {"val": {"folder": str(lists / name)}}}
    (tmp_path / "run.json").write_text(json.dumps(record), encoding="utf-8")
    page = report(tmp_path)
    sources = [value for attribute, value in page.attributes if attribute == "src"]
    assert len([source for source in sources if source.startswith("data:image/jpeg")]) == 1
    assert page.text.count("outside the data folder") == 1


def test_thumbnail_of_an_enormous_image_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "heavy.png").open("wb") as file:
        file.truncate(50_000_001)  # takes no room on the disk
    assert thumbnail(tmp_path, "heavy.png", decode) == (None, "larger than 50 MB")
    # One bit a pixel: 9500 x 9500 = 90.25 megapixels in a few kB.
    Image.new("1", (9500, 9500)).save(tmp_path / "bomb.png")
    assert thumbnail(tmp_path, "bomb.png", decode) == (None, "larger than 89 megapixels")
    Image.new("1", (19000, 9500)).save(tmp_path / "bomb2.png")  # Pillow itself refuses this one
    assert thumbnail(tmp_path, "bomb2.png", decode)[0] is None


def test_several_checkpoints_are_a_table(tmp_path: Path) -> None:
    results = [
        {"checkpoint": f"{name}.ckpt", "top1_correct": right, "top5_correct": 10, "total": 10,
         "loss": None}
        for name, right in (("early", 5), ("late", 8))
    ]  # fmt: skip
    write_evaluation(tmp_path, ["a", "b"], [("x.png", "a", "b", 0.9, 2)], tmp_path, results=results)
    page = report(tmp_path)
    assert "early.ckpt 5 of 10 50.00 % 23.66 to 76.34 % 100.00 % -" in page.text
    assert "late.ckpt 8 of 10 80.00 % 49.02 to 94.33 % 100.00 % -" in page.text
    assert "best of 2: late.ckpt" in page.text
    assert "eval.json has 2 checkpoints, not one" in page.text
    assert "Confusion Rows" not in page.text and not (tmp_path / "confusion.png").exists()


def test_weights_that_could_not_be_evaluated_are_named_beside_the_others(tmp_path: Path) -> None:
    """One damaged file in the folder that was evaluated: there was no report of all the others."""
    results: list[dict[str, Any]] = [
        {"checkpoint": "a.ckpt", "top1_correct": 5, "top5_correct": 9, "total": 10, "loss": None},
        {"checkpoint": "/w/b.ckpt", "error": "/w/b.ckpt: damaged"},
    ]
    results[0]["error"] = 0.5  # a metric of a task of one's own may be called so
    write_evaluation(tmp_path, ["a", "b"], [("x.png", "a", "b", 0.9, 2)], tmp_path, results=results)
    text = report(tmp_path).text
    assert "5 of 10" in text and "eval.json is of a folder of checkpoints" in text
    assert "Not evaluated: b.ckpt (/w/b.ckpt: damaged)." in text


@pytest.mark.parametrize("several", [False, True])
def test_a_report_says_that_the_weights_were_calibrated_on_the_evaluated_images(
    several: bool, tmp_path: Path
) -> None:
    """The log of `eval` and the card said so."""
    rows: list[Row] = [("x.png", "a", "b", 0.9, 2)]
    for own, said in (("aa", True), ("bb", False)):
        content: dict[str, Any] = {
            "data_fingerprint": "aa",
            "calibration": {"temperature": 2.0, "note": {"fingerprint": own}},
        }
        if several:
            score = {"top1_correct": 5, "top5_correct": 9, "total": 10, "loss": None}
            names = ("a.ckpt", "b.ckpt")
            both = [{"checkpoint": name, **score, "data_fingerprint": "aa"} for name in names]
            content = {"results": [both[0], both[1] | content]}
        write_evaluation(tmp_path, ["a", "b"], rows, tmp_path, **content)
        text = report(tmp_path).text
        name = "b.ckpt: " if several else ""
        assert (f"{name}The weights were calibrated on these same images" in text) is said
        assert text.count("calibrated on these same") == said


def test_predictions_of_another_evaluation_are_noticed(tmp_path: Path) -> None:
    rows: list[Row] = [("x.png", "a", "a", 0.9, 1), ("y.png", "a", "b", 0.9, 2)]
    write_evaluation(tmp_path, ["a", "b"], rows, tmp_path, top1_correct=2)
    page = report(tmp_path)
    assert (
        "predictions.csv and eval.json disagree: 1 of 2 correct in the former, 2 of 2" in page.text
    )


def test_damaged_rows_of_predictions_are_counted(tmp_path: Path) -> None:
    write_evaluation(tmp_path, ["a", "b"], [("x.png", "a", "a", 0.9, 1)], tmp_path)
    with (tmp_path / "predictions.csv").open("a", encoding="utf-8") as file:
        file.write("y.png,a,b,nan,2\nz.png,a\n")
    assert "2 row(s) of predictions.csv cannot be read" in report(tmp_path).text
    (tmp_path / "predictions.csv").write_text("path,label,predicted,probability,rank\n")
    assert "predictions.csv has no readable rows" in report(tmp_path).text


def test_no_mistake_at_all(tmp_path: Path) -> None:
    write_evaluation(tmp_path, ["a", "b"], [("x.png", "a", "a", 0.9, 1)], tmp_path)
    page = report(tmp_path)
    assert "Every image was classified correctly." in page.text
    assert "Most confident errors" not in page.text
    assert "1 of 2 classes have no images" in page.text


def test_plot_of_an_earlier_report_does_not_stay(tmp_path: Path) -> None:
    write_metrics(tmp_path, metrics(1, 2))
    write_evaluation(tmp_path, ["a", "b"], [("x.png", "a", "b", 0.9, 2)], tmp_path)
    write_report(tmp_path)
    assert (tmp_path / "confusion.png").exists()
    (tmp_path / "predictions.csv").unlink()
    assert "predictions.csv is not in the folder" in report(tmp_path).text
    assert not (tmp_path / "confusion.png").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("eval.json", "{", "eval.json: not readable as JSON"),
        ("eval.json", "[]", "eval.json: is a list, not a JSON object"),
        ("eval.json", "{}", "eval.json: not the result of an evaluation"),
        ("eval.json", '{"top1_correct": 3, "top5_correct": 3, "total": 2}', "are inconsistent"),
        ("eval.json", "[" * 100_000, "eval.json: not readable as JSON"),
        ("run.json", "\x00", "run.json: not readable as JSON"),
        ("predictions.csv", "path\n" + "x" * 200_000, "predictions.csv: line 2 is not CSV"),
    ],
)
def test_file_that_cannot_be_understood_is_an_error_that_names_it(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    write_metrics(tmp_path, metrics(1, 2))
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(message)):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has neither"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        write_report(tmp_path / "none")


def test_report_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    write_metrics(tmp_path, metrics(1, 2))
    (tmp_path / "report.html").mkdir()  # a file cannot take a folder's place
    with pytest.raises(InputError, match="the report cannot be written there"):
        write_report(tmp_path)
    assert not list(tmp_path.glob(".*.tmp"))
