"""The pages of a study: its numbers, the images of labels in doubt, nothing that runs or loads."""

import base64
import csv
import html
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densenet121.cli import main
from densenet121.config import StudyConfig, settings_of
from densenet121.datasets.division import Images
from densenet121.engine.folds import folds_of, study_images
from densenet121.engine.held_out import Pool
from densenet121.engine.study_results import study_results
from densenet121.report.study import write_study_pages
from densenet121.runs.record import describe_run
from densenet121.runs.study import HeldOut, StudyFolder
from densenet121.runtime import make_runtime
from densenet121.utils.errors import InputError

from helpers.tables import write_class_table, write_label_table


def write_study(config: StudyConfig, images: Images, logits: list[Any]) -> Path:
    """The folder of a study whose networks, one for each seed, gave these logits."""
    division = folds_of(images, config)
    folder = StudyFolder(Path(config.run_dir))
    folder.begin(resume=False)
    task, settings = config.task, settings_of(config)
    runtime = make_runtime("cpu", "fp32", 1, 0)
    record = describe_run("study", settings, runtime, task, images.names, None, None)
    folder.write_start(record, {})
    found = {
        seed: HeldOut(np.asarray(one, np.float32), {})
        for seed, one in zip(config.seed_numbers, logits, strict=True)
    }
    pool = Pool(config, images, division, found)
    doubts = pool.label_errors()
    content = {"settings": settings, "n_label_errors": len(doubts["path"])} | study_results(pool)
    folder.write_results(content, {None: pool.columns(pool.ensemble)}, doubts)
    write_study_pages(folder.path)
    return folder.path


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks that contradict the labels of images 3 and 10, of the latter with two seeds only."""
    root = tmp_path_factory.mktemp("single")
    source = write_class_table(root / "data", 18)
    source.write_text(source.read_text().replace("bee", "<b>bee"))
    config = StudyConfig(
        data_dir=str(source), run_dir=str(root / "study"), folds=3, seeds=3, stratify=True
    )
    images = study_images(config)
    right = np.eye(3)[images.labels] + np.random.default_rng(1).normal(0, 0.1, (36, 3))
    logits = [right.copy() for _ in range(3)]
    for seed, image, factor in ((0, 3, 6), (1, 3, 6), (2, 3, 6), (1, 10, 20), (2, 10, 20)):
        logits[seed][image] = factor * np.eye(3)[(images.labels[image] + 1) % 3]
    return write_study(config, images, logits)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("several")
    source = write_label_table(root / "data", 45)
    config = StudyConfig(
        data_dir=str(source), run_dir=str(root / "study"), folds=3, stratify=True, group="patient",
        task="multilabel", missing="ignore", patience=3,
    )  # fmt: skip
    images = study_images(config)
    logits = 4 * np.nan_to_num(images.labels, nan=0.5) - 2
    logits += np.random.default_rng(1).normal(0, 0.5, (45, 3))
    known = np.flatnonzero(~np.isnan(images.labels[:, 1]))[:2]
    logits[known, 1] *= -2
    return write_study(config, images, [logits])


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


@pytest.mark.parametrize("kind", ["single", "several"])
def test_the_pages_run_and_load_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    for name in ("study.html", "label_errors.html"):
        page = (folder / name).read_text(encoding="utf-8")
        assert "<script" not in page and "<b>bee" not in page
        assert "default-src 'none'" in page
        sources = set(re.findall(r'(?:src|href)="([^"]{1,40})', page))
        outside = {one for one in sources if not one.startswith(("data:image/", "runs/"))}
        assert outside <= {"label_errors.html"}


def test_the_page_has_the_numbers_of_the_study(single: Path) -> None:
    content = json.loads((single / "study.json").read_text())
    page = (single / "study.html").read_text(encoding="utf-8")
    text = text_of(page)
    for found in content["spread"].values():
        for value in (found["ensemble"], *found["ensemble_ci"], found["seeds"]["mean"]):
            assert f"{value:.4f}" in text
        assert f"{found['folds']['sd']:.4f}" in text
    for name, found in content["ensemble"]["labels"].items():
        assert html.escape(name) in page and f"{found['auroc']:.4f}" in text
    assert "36 images" in text and "3 folds, 3 seeds" in text
    assert "The images count as independent." in text
    assert "may be too narrow, with positives, or negatives, of fewer than 20 images: " in text
    assert "Confusion" in text and "Reports of the runs" in text
    assert (single / "study.png").read_bytes()[:4] == b"\x89PNG"


def test_the_page_of_labels_has_curves_and_says_what_makes_numbers_too_good(several: Path) -> None:
    text = text_of((several / "study.html").read_text(encoding="utf-8"))
    assert "somewhat too good" in text and "count as independent" not in text
    assert "ROC" in text or "Curves" in text
    assert "Its interval is over 15 groups" in text
    assert "Accuracy" not in text


def test_labels_that_networks_contradict_are_shown_with_their_images(single: Path) -> None:
    rows = rows_of(single / "label_errors.csv")
    everything = rows_of(single / "predictions.csv")
    assert [row["path"] for row in rows] == [everything[at]["path"] for at in (3, 10)]
    assert [row["seeds"] for row in rows] == ["3", "2"]
    for row, at in zip(rows, (3, 10), strict=True):
        own = everything[at]
        assert (row["label"], row["suggested"]) == (own["label"], own["predicted"])
        assert row["probability"] == own[f"probability_{own['label']}"]
        assert row["probability_suggested"] == own[f"probability_{own['predicted']}"]
    page = (single / "label_errors.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == page.count('src="data:image/jpeg') == 2
    text = text_of(page)
    assert text.index(rows[0]["path"]) < text.index(rows[1]["path"])
    assert "3 of 3 seeds" in text and "2 of 3 seeds" in text


def test_of_several_labels_the_one_in_doubt_is_named(several: Path) -> None:
    rows = rows_of(several / "label_errors.csv")
    by_path = {row["path"]: row for row in rows_of(several / "predictions.csv")}
    planted = [row for row in rows if row["name"] == "green"][:2]
    assert rows[:2] == planted
    for row in rows:
        own = by_path[row["path"]]
        assert row["label"] == own[row["name"]] != row["suggested"]
        assert row["probability"] == own[f"probability_{row['name']}"]
        assert row["patient"] == own["patient"]
    text = text_of((several / "label_errors.html").read_text(encoding="utf-8"))
    for row in planted:
        assert ("green?" if row["suggested"] == "1" else "no green?") in text


def test_report_writes_the_pages_again(single: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (single / name).read_bytes() for name in ("study.html", "label_errors.html")}
    for name in before:
        (single / name).unlink()
    assert main(["report", str(single)]) == 0
    assert capsys.readouterr().out.strip() == str(single / "study.html")
    assert {name: (single / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("count", [200, 201])
def test_of_many_bad_images_the_page_says_where_all_are(
    count: int, single: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(single, tmp_path / "study"))
    content = json.loads((folder / "study.json").read_text())
    content["bad_images"] = [{"path": f"bad_{i}.png", "error": "empty"} for i in range(count)]
    (folder / "study.json").write_text(json.dumps(content))
    page = text_of(write_study_pages(folder).read_text())
    assert f"{count} files could not be read." in page and "bad_199.png" in page
    assert ("The first 200; study.json names all." in page) == (count == 201)


def test_a_damaged_file_is_one_line(single: Path, tmp_path: Path) -> None:
    for text in ("{", "[]"):
        (tmp_path / "study.json").write_text(text)
        with pytest.raises(InputError, match=r"study\.json: "):
            write_study_pages(tmp_path)
    (tmp_path / "study.json").write_text((single / "study.json").read_text())
    with pytest.raises(InputError, match=r"label_errors\.csv: cannot be read"):
        write_study_pages(tmp_path)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("spread", "accuracy", "x"),
        ("spread", "accuracy", None),
        ("ensemble", "labels", []),
        (None, "data_dir", None),
        (None, "seed_numbers", 1),
        (None, "class_names", None),
        (None, "folds", [1]),
    ],
)
def test_a_damaged_study_is_refused_by_the_name_of_its_file(
    part: str | None, key: str, value: object, single: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(single, tmp_path / "study")
    page = (folder / "study.html").read_bytes()
    content = json.loads((folder / "study.json").read_text())
    (content[part] if part else content)[key] = value
    (folder / "study.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"study\.json: not as study wrote it .* writes it anew"):
        write_study_pages(folder)
    assert (folder / "study.html").read_bytes() == page


@pytest.mark.parametrize("change", [("probability", "p"), (",0.", ",x."), ("label", "l")])
def test_a_damaged_table_of_labels_in_doubt_is_refused_by_its_name(
    change: tuple[str, str], single: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(single, tmp_path / "study")
    table = folder / "label_errors.csv"
    table.write_text(table.read_text().replace(*change))
    with pytest.raises(InputError, match=r"label_errors\.csv: not as study wrote it"):
        write_study_pages(folder)


def test_images_of_16_bits_in_doubt_are_shown_as_the_networks_saw_them(
    single: Path, tmp_path: Path
) -> None:
    """Through the window that the runs recorded; Pillow cuts 16 bits at 255, which is white."""
    shutil.copytree(single, tmp_path / "study")
    content = json.loads((tmp_path / "study" / "study.json").read_text())
    content["data_dir"] = str(tmp_path / "data")
    (tmp_path / "study" / "study.json").write_text(json.dumps(content))
    samples = np.linspace(0, 4095, 32 * 32).reshape(32, 32)
    (tmp_path / "data").mkdir()
    for row in rows_of(single / "label_errors.csv"):
        Image.fromarray(samples.astype(np.uint16)).save(tmp_path / "data" / row["path"])
    run = tmp_path / "study" / "runs" / "fold_0_seed_1"
    run.mkdir(parents=True)
    settings = {"depth": 16, "window": "0,4095"}
    (run / "run.json").write_text(json.dumps({"command": "train", "settings": settings}))
    write_study_pages(tmp_path / "study")
    for name in ("label_errors.html", "study.html"):
        page = (tmp_path / "study" / name).read_text(encoding="utf-8")
        found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
        assert len(found) == 2
        for one in found:
            with Image.open(io.BytesIO(base64.b64decode(one))) as image:
                shown = np.asarray(image.convert("L"))
            np.testing.assert_allclose(shown, samples / 4095 * 255, atol=4)
