"""compare: the numbers of a hand calculation, and an exit status for a gate."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from densenet121.cli import main
from densenet121.commands.compare import compare_files as compared
from densenet121.runs.evaluations import read_evaluation
from densenet121.tasks.single_label.comparison import Difference
from densenet121.utils.errors import InputError


def write(folder: Path, right: list[bool], label: str = "ant") -> Path:
    folder.mkdir()
    rows = [f"{label}/{i}.png,{label},{label if r else 'bee'},0.9,1" for i, r in enumerate(right)]
    text = "path,label,predicted,probability,rank\n" + "\n".join(rows) + "\n"
    (folder / "predictions.csv").write_text(text)
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Of 200 images A has 150 right; B loses 12 of them and gains 3."""
    a = [True] * 150 + [False] * 50
    b = [False] * 12 + [True] * 138 + [True] * 3 + [False] * 47
    return write(tmp_path / "a", a), write(tmp_path / "b", b)


def test_the_numbers_are_those_of_a_hand_calculation(pair: tuple[Path, Path]) -> None:
    found = compared(read_evaluation(pair[0]), read_evaluation(pair[1] / "predictions.csv"))
    assert isinstance(found, Difference)
    assert (found.top1_a, found.top1_b, found.only_a, found.only_b) == (75.0, 70.5, 12, 3)
    assert found.difference == -4.5 and found.classes == (("ant", 200, -4.5),)
    assert abs(found.p_value - 2 * binom.cdf(3, 15, 0.5)) < 1e-12
    # The mean of 200 draws of -1 (12), 1 (3) and 0: its standard error by the formula.
    error = 100 * ((15 / 200 - 0.045**2) / 200) ** 0.5
    assert abs(found.low - (-4.5 - 1.96 * error)) < 0.6
    assert abs(found.high - (-4.5 + 1.96 * error)) < 0.6
    assert len(found.flipped) == 15
    assert found.flipped[0] == ("ant/0.png", "ant", "ant", "bee")


def test_a_name_from_outside_cannot_command_the_terminal(tmp_path: Path) -> None:
    a, b = (write(tmp_path / name, [name == "a"], "an\x1b[8mt") for name in "ab")
    text = compared(read_evaluation(a), read_evaluation(b)).text(5)
    assert r"  an\x1b[8mt/0.png: A an\x1b[8mt, B bee" in text and "\x1b" not in text


def test_the_exit_status_is_a_gate(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = map(str, pair)
    assert main(["compare", a, b]) == 0
    assert main(["compare", a, b, "--fail_if_worse_by", "4.5"]) == 0
    assert main(["compare", a, b, "--fail_if_worse_by", "4.4"]) == 1
    assert main(["compare", b, a, "--fail_if_worse_by", "0"]) == 0
    assert "-4.50 percentage points" in capsys.readouterr().out


def test_an_evaluation_does_not_differ_from_itself(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interval without width would say that no other image differs."""
    a, out = str(pair[0]), tmp_path / "out.json"
    assert main(["compare", a, a, "--format", "json", "--output", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(out.read_text())
    assert (found["difference"], found["p_value"]) == (0, 1)
    assert found["low"] is found["high"] is None
    assert found["flipped"] == []
    with_patients(pair[0], [str(i // 2) for i in range(200)])
    for more in ([], ["--group", "patient"]):
        assert main(["compare", a, a, *more]) == 0
        said = "no interval, since A and B are right on the same images\n"
        assert said in capsys.readouterr().out


def test_images_or_groups_that_all_changed_alike_give_no_interval(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", [True] * 4), write(tmp_path / "b", [True, False] * 2)
    with_patients(a, ["1", "1", "2", "2"])
    found = compared(read_evaluation(a), read_evaluation(b), group="patient")
    assert isinstance(found, Difference) and found.low is found.high is None
    assert "-50.00 percentage points, no interval, since all groups changed alike" in found.text(5)
    none = write(tmp_path / "none", [False] * 4)
    found = compared(read_evaluation(a), read_evaluation(none))
    assert isinstance(found, Difference) and found.low is found.high is None
    assert "-100.00 percentage points, no interval, since all images changed alike" in found.text(5)


def with_patients(folder: Path, ids: list[str]) -> None:
    """A column of patients in its predictions.csv."""
    first, *rows = (folder / "predictions.csv").read_text().splitlines()
    rows = [f"{row},{patient}" for row, patient in zip(rows, ids, strict=True)]
    (folder / "predictions.csv").write_text("\n".join([f"{first},patient", *rows]) + "\n")


def test_groups_are_drawn_whole(pair: tuple[Path, Path]) -> None:
    a, b = map(read_evaluation, pair)
    alone = compared(a, b)
    with_patients(pair[0], [str(i) for i in range(200)])
    of_one = compared(read_evaluation(pair[0]), b, group="patient")
    assert isinstance(alone, Difference) and isinstance(of_one, Difference)
    assert (alone.n_groups, of_one.n_groups) == (None, 200)
    ends = (of_one.low, of_one.high), (alone.low, alone.high)
    assert np.abs(np.subtract(*np.array(ends, dtype=np.float64))).max() < 0.6
    # 40 patients of five images that change together: the standard error of a mean of 40 sums.
    with_patients(pair[1], [f" {i // 5} " for i in range(200)])
    for folder in pair:
        text = (folder / "predictions.csv").read_text().replace(",patient\n", ",own\n", 1)
        (folder / "predictions.csv").write_text(text)
    a, b = map(read_evaluation, pair)
    with pytest.raises(InputError, match='its "own" is 1 in A but 0 in B'):
        compared(a, b, group="own")
    ids = {path: row["own"] for path, row in b.rows.items()}
    for path, row in a.rows.items():
        row["own"] = ids[path]
    found = compared(a, b, group="own")
    assert isinstance(found, Difference) and found.n_groups == 40
    gained = np.array([int(b.rows[p]["predicted"] == "ant") for p in a.rows]) - np.array(
        [int(a.rows[p]["predicted"] == "ant") for p in a.rows]
    )
    sums = np.array([gained[i : i + 5].sum() for i in range(0, 200, 5)])
    error = 100 * sums.std() / np.sqrt(40) / 5
    assert error > 1.5  # over images it is 1.9 / 1.96
    assert abs(found.low - (-4.5 - 1.96 * error)) < 1.2
    assert abs(found.high - (-4.5 + 1.96 * error)) < 1.2
    assert "(paired bootstrap over 40 groups)" in found.text(5)
    assert "takes images for independent" in found.text(5)
    few = "with fewer than 20 groups such intervals are too narrow"
    assert few not in found.text(5)
    for number, row in enumerate(a.rows.values()):
        row["own"] = b.rows[row["path"]]["own"] = f"hospital {number % 19}"
    assert few in compared(a, b, group="own").text(5)


def test_a_single_group_gives_no_interval(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """One patient tells nothing of others; the interval had no width, as if it were certain."""
    with_patients(pair[0], ["7"] * 200)
    command = ["compare", *map(str, pair), "--group", "patient"]
    assert main([*command, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_groups"] == 1 and found["difference"] == -4.5
    assert found["low"] is found["high"] is None
    assert main([*command, "--fail_if_worse_by", "4"]) == 1
    assert "points, no interval, since all images are of one group\n" in capsys.readouterr().out


def test_many_groups_need_little_memory(tmp_path: Path) -> None:
    """Draws are held in parts: at once, those of 20,000 groups were 0.8 GB, and twice that."""
    rng = np.random.default_rng(1)
    a, b = (write(tmp_path / name, (rng.random(20_000) < 0.8).tolist()) for name in "ab")
    with_patients(a, [str(i) for i in range(20_000)])
    files = read_evaluation(a), read_evaluation(b)
    tracemalloc.start()
    found = compared(*files, group="patient", resamples=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, Difference) and found.n_groups == 20_000
    assert peak < 100e6
    alone = compared(*files, resamples=1000)
    assert isinstance(alone, Difference)
    assert found.low == pytest.approx(alone.low, abs=0.1)


def test_images_without_a_group_are_refused(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["compare", *map(str, pair), "--group", "patient"]
    assert main(arguments) == 1
    assert '"patient" is no column of' in capsys.readouterr().err
    with_patients(pair[1], ["7", " ", *["8"] * 198])
    assert main(arguments) == 1
    assert 'ant/1.png has no id in the column "patient"' in capsys.readouterr().err
    with_patients(pair[1], ["5", "5.0", *["8"] * 198])  # of one patient, as pandas writes them
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"--group patient of {pair[1]}" in error and "5 and 5.0 are one number" in error


def test_other_images_or_labels_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    a = read_evaluation(pair[0])
    with pytest.raises(InputError, match="have different images"):
        compared(a, read_evaluation(write(tmp_path / "c", [True] * 199)))
    text = (pair[1] / "predictions.csv").read_text().replace("/5.png,ant", "/5.png,bee")
    (pair[1] / "predictions.csv").write_text(text)
    with pytest.raises(InputError, match=r"ant/5\.png: its label is ant in A but bee in B"):
        compared(a, read_evaluation(pair[1]))


@pytest.mark.parametrize("text", ["", "path,label\nx,y\n", "path,label,predicted\nx,y,\n"])
def test_what_is_no_evaluation_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "predictions.csv").write_text(text)
    with pytest.raises(InputError, match=r"predictions\.csv"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize("column", ["patient", "group"])  # a study may call it group
def test_evaluations_over_groups_are_not_compared_over_images_in_silence(
    column: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(tmp_path / name) for name in "ab"]
    for folder in map(Path, folders):
        folder.mkdir()
        lines = [f"path,{column},label,predicted,probability,rank"]
        lines += [f"{i}.png,P{i // 2},ant,{'ant' if i % 3 else 'bee'},0.5,1" for i in range(8)]
        (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
        (folder / "run.json").write_text('{"settings": {"group": "patient"}}')
    main(["compare", *folders])
    note = capsys.readouterr().err
    assert "over groups" in note and f"pass --group {column}" in note
    main(["compare", *folders, "--group", column])
    assert not capsys.readouterr().err
    for place in folders:
        (Path(place) / "run.json").write_text('{"settings": {"group": null}}')
    main(["compare", *folders])
    assert not capsys.readouterr().err


def test_other_files_of_the_same_paths_are_named(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two sets of images with the same names were compared without a word."""

    def note(**of_b: object) -> str:
        for folder, more in zip(pair, ({}, of_b), strict=True):
            content = {"data_fingerprint": "aa", "class_names": ["ant"], "bad_images": []} | more
            (folder / "eval.json").write_text(json.dumps(content))
        assert main(["compare", *map(str, pair)]) == 0
        return capsys.readouterr().err

    said = note(data_fingerprint="bb")
    assert "have the same paths, but by the fingerprints in eval.json their files differ" in said
    assert str(pair[0]) in said and str(pair[1]) in said
    assert not note()
    # The fingerprint has the classes of the weights, and images that could not be read.
    assert not note(data_fingerprint="bb", class_names=["ant", "bee"])
    assert not note(data_fingerprint="bb", bad_images=[{"path": "x", "error": "y"}])
    assert not note(data_fingerprint=None)  # an older evaluation
