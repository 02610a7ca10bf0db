"""Faults planted in a real collection: the audit finds all of them and nothing else."""

import json
import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densenet121.audit.audit import audit
from densenet121.audit.findings import KINDS, Finding
from densenet121.cli import main
from densenet121.config import AuditConfig
from densenet121.datasets.decoding import read_image
from densenet121.datasets.sources.open import open_training

from helpers.commands import SHARED, run_command

Pixels = NDArray[np.uint8]


def scene(seed: int, size: tuple[int, int] = (96, 128)) -> Pixels:
    """Blobs of colour, no two images alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.fixture(params=["photographs", "scenes"])
def sound(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """``train/`` and ``val/`` of two classes, without a fault."""
    root = tmp_path / "data"
    if request.param == "photographs":
        if not (SHARED / "data/photos").is_dir():
            pytest.skip("the photographs of ../shared are not here")
        for split, names in (("train", "ants bees"), ("val", "ants bees")):
            for name in names.split():
                (root / split / name).mkdir(parents=True)
                files = sorted((SHARED / "data/photos" / split / name).iterdir())[:12]
                for file in files:
                    shutil.copyfile(file, root / split / name / file.name)
    else:
        for number, split in enumerate(("train", "val")):
            for label, name in enumerate(("ants", "bees")):
                (root / split / name).mkdir(parents=True)
                for index in range(12):
                    seed = 1000 * number + 100 * label + index
                    Image.fromarray(scene(seed)).save(root / split / name / f"{index:02d}.jpg")
    return root


def found(root: Path, **settings: object) -> set[tuple[str, str]]:
    result = audit(AuditConfig(source=str(root), **settings))  # type: ignore[arg-type]
    return {(finding.kind, f"{finding.split}/{finding.path}") for finding in result.findings}


def first(folder: Path, number: int = 0) -> Path:
    return sorted(file for file in folder.iterdir() if file.suffix == ".jpg")[number]


def test_a_sound_collection_has_nothing(sound: Path) -> None:
    assert found(sound) == set()
    result = run_command("audit", sound)
    assert result.returncode == 0, result.stderr
    assert "no findings" in result.stdout


def test_planted_faults_are_all_found_and_nothing_else(sound: Path) -> None:
    train, val = sound / "train/ants", sound / "val/bees"
    whole = first(train).read_bytes()
    pixels = read_image(first(train, 1))
    expected: set[tuple[str, str]] = set()

    def plant(kind: str, path: Path, *others: str) -> Path:
        expected.update((k, str(path.relative_to(sound))) for k in (kind, *others))
        return path

    plant("empty", train / "p00.jpg").write_bytes(b"")
    plant("not_a_picture", train / "p01.jpg").write_bytes(b"<html>404</html>")
    plant("truncated", train / "p02.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    png = BytesIO()
    Image.fromarray(scene(7001)).save(png, "PNG")
    plant("truncated", train / "p03.png").write_bytes(png.getvalue()[:-200])
    broken = bytearray(png.getvalue())
    broken[len(broken) // 2] ^= 255
    plant("damaged", train / "p04.png").write_bytes(bytes(broken))
    plant("wrong_extension", train / "p05.jpg").write_bytes(png.getvalue())
    Image.fromarray(scene(7002)).convert("CMYK").save(plant("cmyk", train / "p06.jpg"))
    alpha = Image.fromarray(scene(7003))
    alpha.putalpha(128)
    alpha.save(plant("alpha", train / "p07.png"))
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(scene(7004)).save(plant("rotated", train / "p08.jpg"), exif=exif)
    deep = cv2.cvtColor(scene(7007), cv2.COLOR_RGB2GRAY).astype(np.uint16)
    cv2.imwrite(str(plant("low_range", train / "p11.png")), deep << 4)
    cv2.imwrite(str(train / "p12.png"), scene(7008).astype(np.uint16) << 8)  # uses all 16 bits
    pages = [Image.fromarray(scene(7010 + page)) for page in range(3)]
    pages[0].save(plant("several", train / "p13.tif"), save_all=True, append_images=pages[1:])
    Image.fromarray(scene(7005)[:20, :40]).save(plant("tiny", train / "p09.png"))
    Image.fromarray(scene(7006, (1100, 1300))).save(plant("huge", train / "p10.png"))
    # Copies come after their originals by name.
    shutil.copyfile(first(train, 2), plant("exact_duplicate", train / "zz1.jpg"))
    smaller = cv2.resize(pixels, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    Image.fromarray(smaller).save(plant("near_duplicate", train / "zz2.jpg"), quality=60)
    shutil.copyfile(
        first(train, 3), plant("exact_duplicate", sound / "train/bees/zz3.jpg", "two_classes")
    )
    leaked = sorted((sound / "train/bees").glob("*.jpg"))[0]
    shutil.copyfile(leaked, plant("train_and_val", val / "zz4.jpg"))
    (train / "notes.txt").write_text("x")
    expected.add(("ignored", "train/ants/notes.txt"))
    for split, name in (("train", "wasps"), ("val", "flies")):
        (sound / split / name).mkdir()
        plant("class_sets", sound / split / name)
        Image.fromarray(scene(8000 + ord(name[0]))).save(sound / split / name / "1.png")
    expected |= {("imbalance", "train/wasps"), ("imbalance", "val/flies")}

    assert found(sound, most_pixels=1.4) == expected
    assert {kind for kind, _ in expected} == set(KINDS) - {"one_kind"} - {"group_in_both"}


def test_patients_in_both_splits_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a column of lists, and by what their paths say; patient 2 is in both."""
    for split, patients in (("train", (1, 1, 2)), ("val", (2, 3, 2))):
        rows = ["path,label,patient"]
        for index, patient in enumerate(patients):
            path = f"{split}/{'ab'[index % 2]}/p{patient}_{index}.png"
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene(len(split) * 100 + index)).save(tmp_path / path)
            rows.append(f"{path},{'ab'[index % 2]},{patient}")
        (tmp_path / f"{split}.csv").write_text("\n".join(rows) + "\n")
    lists = {"source": str(tmp_path / "train.csv"), "val_dir": str(tmp_path / "val.csv")}
    for settings in (lists | {"group": "patient"}, lists | {"group": r"p(\d)_"}):
        (finding,) = audit(AuditConfig(**settings)).findings  # type: ignore[arg-type]
        assert (finding.kind, finding.detail) == ("group_in_both", "2: 2 images in val, 1 in train")
        assert (finding.path, finding.other) == ("val/a/p2_0.png", ("train", "train/a/p2_2.png"))
    assert main(["audit", str(tmp_path), "--group", r"p(\d)_"]) == 1
    text = capsys.readouterr().out
    assert "FAULT: groups with images in both train and val: 1" in text
    assert "val/a/p2_0.png: 2: 2 images in val, 1 in train" in text
    assert main(["audit", str(tmp_path / "train.csv"), "--group", "patient"]) == 2
    assert "--group compares train with val, but there is no val" in capsys.readouterr().err
    assert main(["audit", str(tmp_path), "--group", "patient"]) == 1
    assert "--group patient is no column and finds no id in a/p1_0.png" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["single_label", "multilabel"])
def test_patients_are_those_of_the_images_of_each_split_of_one_list(
    tmp_path: Path, task: str
) -> None:
    """The splits alternate, so that a patient of the wrong row would be found."""
    rows = ["patient,path,label,split"]
    patients = {"p1": "val", "p2": "train", "p3": "val", "p4": "train", "p5": "val", "p6": "train"}
    for index, (patient, split) in enumerate([*patients.items(), ("p1", "train")]):
        Image.fromarray(scene(index)).save(tmp_path / f"{index}.png")
        rows.append(f"{patient},{index}.png,{index // 2 % 2},{split}")
    (tmp_path / "all.csv").write_text("\n".join(rows) + "\n")
    settings = {"source": str(tmp_path / "all.csv"), "group": "patient", "task": task}
    found = audit(AuditConfig(**settings)).findings  # type: ignore[arg-type]
    assert [(f.path, f.detail, f.other) for f in found if f.kind == "group_in_both"] == [
        ("0.png", "p1: 1 images in val, 1 in train", ("train", "6.png"))
    ]


@pytest.mark.parametrize(
    ("name", "bits", "channels", "levels"),
    [
        ("x.png", 12, 1, 16),
        ("x.png", 12, 3, 16),
        ("x.png", 12, 4, 16),
        ("x.tif", 12, 1, 16),
        ("x.pgm", 12, 1, 16),
        ("x.png", 10, 1, 4),
        ("x.png", 16, 1, None),
        ("x.tif", 16, 1, None),
        ("x.pgm", 16, 1, None),
    ],
)
def test_twelve_bits_in_sixteen_are_named_with_what_is_left(
    name: str, bits: int, channels: int, levels: int | None, sound: Path
) -> None:
    grey = cv2.cvtColor(scene(7007), cv2.COLOR_RGB2GRAY)
    grey[0, 0] = 255
    samples = grey.astype(np.uint16) * 257 >> 16 - bits
    pixels = samples if channels == 1 else np.stack([samples] * channels, axis=2)
    if channels == 4:
        pixels[..., 3] = 65535
    file = sound / "train" / "ants" / name
    cv2.imwrite(str(file), pixels)
    findings = audit(AuditConfig(source=str(sound))).findings
    details = [finding.detail for finding in findings if finding.kind == "low_range"]
    expected = f"16-bit samples of at most {2**bits - 1}, as of {bits} bits: only the high byte"
    assert [detail.startswith(expected) for detail in details] == [True] * bool(levels)
    if levels:
        assert f"so {levels} of 256 levels are left" in details[0]
        assert read_image(file).max() == levels - 1
        # Colour is refused with that setting.
        assert ("depth 16 with window" in details[0]) == (channels == 1)


def test_json_page_list_and_exit_status(sound: Path, tmp_path: Path) -> None:
    file = sound / "train/ants/zz<&>.jpg"
    file.write_bytes(b"not an image")
    shutil.copyfile(first(sound / "train/ants"), sound / "val/ants/zz.jpg")
    shutil.copyfile(first(sound / "train/bees"), sound / "train/bees/zz.jpg")
    before = {path: path.stat().st_mtime_ns for path in sound.rglob("*")}
    page, listed = tmp_path / "page.html", tmp_path / "bad.txt"
    result = run_command("audit", sound, "--json", "--page", page, "--exclude_list", listed)
    assert result.returncode == 1, result.stderr
    content = json.loads(result.stdout)
    assert content["faults"] is True
    kinds = sorted(finding["kind"] for finding in content["findings"])
    assert kinds == ["exact_duplicate", "not_a_picture", "train_and_val"]
    leaked = first(sound / "train/ants").name
    assert sorted(listed.read_text().splitlines()) == sorted(
        [f"train/ants/{leaked}", "train/ants/zz<&>.jpg", "train/bees/zz.jpg"]
    )
    text = page.read_text(encoding="utf-8")
    assert "zz&lt;&amp;&gt;.jpg" in text and "zz<&>" not in text
    assert text.count("data:image/jpeg") == 4 and "http" not in text
    assert {path: path.stat().st_mtime_ns for path in sound.rglob("*")} == before
    train, _ = open_training(sound, exclude=listed)
    assert len(train) == 2 * 12 + 2 - 3
    assert found_after(sound, listed) == set()


def found_after(root: Path, listed: Path) -> set[str]:
    """Faults of what the list leaves."""
    for path in listed.read_text().splitlines():
        (root / path).unlink()
    return {kind for kind, _ in found(root)}


def test_copies_of_copies_are_named_once(sound: Path) -> None:
    original = first(sound / "train/ants")
    for number in range(3):
        shutil.copyfile(original, sound / f"train/ants/zz{number}.jpg")
    result = audit(AuditConfig(source=str(sound)))
    assert result.findings == tuple(
        Finding(
            "exact_duplicate",
            "train",
            f"ants/zz{number}.jpg",
            f"same pixels as train/ants/{original.name}",
            ("train", f"ants/{original.name}"),
        )
        for number in range(3)
    )


@pytest.mark.parametrize(
    ("change", "is_near"),
    [
        (lambda p: cv2.imdecode(cv2.imencode(".jpg", p, [1, 30])[1], 1), True),
        (lambda p: cv2.resize(p, None, fx=1.7, fy=1.7), True),
        (lambda p: np.clip(p * 1.1 + 5, 0, 255).astype(np.uint8), True),
        (lambda p: p[::-1], False),
        (lambda p: p[:, ::-1], False),
        (lambda p: p[: p.shape[0] // 2], False),
    ],
)
def test_what_counts_as_a_near_copy(
    change: Callable[[Pixels], Pixels], is_near: bool, sound: Path
) -> None:
    changed = change(read_image(first(sound / "train/ants", 4)))
    Image.fromarray(np.ascontiguousarray(changed)).save(sound / "train/ants/zz.png")
    expected = {("near_duplicate", "train/ants/zz.png")} if is_near else set()
    assert found(sound, most_pixels=100) == expected
    assert found(sound, most_pixels=100, near=-1) == set()


def test_flat_images_are_no_near_copies_of_each_other(sound: Path) -> None:
    for number, level in enumerate((0, 128, 255)):
        flat = np.full((64, 64, 3), level, np.uint8)
        Image.fromarray(flat).save(sound / f"train/ants/flat{number}.png")
    assert found(sound) == set()


def test_audit_of_shards_and_wrong_use(sound: Path, tmp_path: Path) -> None:
    result = run_command("pack", sound, "--output", tmp_path / "shards")
    assert result.returncode == 0, result.stderr
    assert found(tmp_path / "shards") == set()
    for arguments, status, message in (
        (("audit", tmp_path / "nothing"), 1, "there is no such folder"),
        (("audit", sound, "--near", "99"), 2, "--near must be"),
        (("pack", sound, "--output", sound), 2, "already exists; choose a new folder"),
    ):
        result = run_command(*arguments)
        assert (result.returncode, result.stdout) == (status, "")
        assert message in result.stderr and result.stderr.count("\n") == 1


def test_a_file_that_may_not_be_read_is_a_finding(sound: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    first(sound / "train/ants").chmod(0)
    assert {kind for kind, _ in found(sound)} == {"damaged"}


def test_a_source_that_is_not_there_is_named_as_the_argument(tmp_path: Path) -> None:
    for command in (("audit",), ("pack", "--output", tmp_path / "out")):
        result = run_command(*command, tmp_path / "nowhere")
        assert result.returncode == 1
        assert result.stderr.startswith(f"densenet121: SOURCE {tmp_path / 'nowhere'}: ")


@pytest.mark.parametrize("name", ["a\nb.png", "a\rb.png"])
def test_a_name_that_a_list_of_lines_cannot_hold_is_refused_for_exclude_list_alone(
    name: str, sound: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(sound, tmp_path / "odd")
    image = next(folder.rglob("*.png"), None) or next(folder.rglob("*.jpg"))
    image.rename(image.with_name(name))
    listed = tmp_path / "bad.txt"
    result = run_command("audit", folder, "--exclude_list", listed)
    assert result.returncode == 1
    assert "has a line break, which --exclude_list cannot hold; rename it" in result.stderr
    assert not listed.exists()
    assert "cannot hold" not in run_command("audit", folder).stderr
