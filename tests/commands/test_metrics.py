"""The metrics command: published figures, readable refusals, no torch."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_auc_score

from densenet121.cli import main

from helpers.commands import SHARED, run_code

NIH = SHARED / "reference" / "nih"
PREDICTIONS = NIH / "nih_test_predictions.csv"
NIH_FLAGS = [
    *("--label_column", "Finding Labels", "--label_separator", "|"),
    *("--negative_label", "No Finding", "--probability_prefix", "prob_"),
]
needs_nih = pytest.mark.skipif(
    not PREDICTIONS.exists(), reason="needs the published predictions in ../shared/reference/nih"
)


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["metrics", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object, status: int = 1) -> str:
    assert main(["metrics", *map(str, arguments)]) == status
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """80 images of 20 patients with two labels, one column each."""
    rng = np.random.default_rng(1)
    file = tmp_path / "wide.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["path", "patient", "view", "A", "B", "p_A", "p_B"])
        for row in range(80):
            p = rng.random(2).round(2)
            labels = (rng.random(2) < p).astype(int)
            writer.writerow([f"{row}.png", row // 4, "AP" if row % 3 else "PA", *labels, *p])
    return file


def edited(file: Path, line: int, column: int, cell: str) -> Path:
    rows = [row.split(",") for row in file.read_text().splitlines()]
    rows[line - 1][column] = cell
    file.write_text("\n".join(",".join(row) for row in rows) + "\n")
    return file


CALLS = ["--probability_prefix", "p_", "--threshold", "A=0.5"]


@needs_nih
def test_the_published_aurocs_of_nih(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, PREDICTIONS, *NIH_FLAGS, "--resamples", 0)
    with (NIH / "nih_test_aucs_reference.csv").open(newline="") as file:
        published = {row["label"]: float(row["auc"]) for row in csv.DictReader(file)}
    assert len(published) == 14
    assert list(found["labels"]) == list(published)
    for name, value in published.items():
        assert abs(found["labels"][name]["auroc"] - value) < 1e-12, name
    assert abs(found["macro"]["auroc"] - np.mean(list(published.values()))) < 1e-12
    assert found["macro"]["average_precision"] == pytest.approx(0.259346, abs=5e-7)
    assert found["labels"]["Hernia"]["n_positive"] == 42


@needs_nih
def test_intervals_by_patient_are_wider_than_by_image(capsys: pytest.CaptureFixture[str]) -> None:
    """3.6 images a patient: those of one patient are alike."""
    flags = [PREDICTIONS, *NIH_FLAGS, "--resamples", 150]
    images = as_json(capsys, *flags)
    patients = as_json(capsys, *flags, "--group", "Patient ID")
    assert (patients["n_images"], patients["n_groups"]) == (22433, 6187)
    ratios = [
        np.ptp(patients["labels"][name]["auroc_ci"]) / np.ptp(found["auroc_ci"])
        for name, found in images["labels"].items()
    ]
    assert len(ratios) == 14 and np.median(ratios) > 1.2
    assert sum(ratio > 1 for ratio in ratios) >= 12  # Pneumonia has 1.4 images a patient
    macro = [np.ptp(found["macro"]["auroc_ci"]) for found in (images, patients)]
    assert macro[1] > 1.1 * macro[0]


@needs_nih
def test_at_one_half_no_pneumonia_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, PREDICTIONS, *NIH_FLAGS, "--resamples", 0, "--threshold", 0.5)
    calls = found["labels"]["Pneumonia"]
    assert (calls["tp"], calls["fp"], calls["fn"], calls["sensitivity"]) == (0, 0, 260, 0)
    assert calls["ppv"] is calls["ppv_ci"] is None
    assert calls["sensitivity_ci"][0] == 0 < calls["sensitivity_ci"][1]
    assert set(found["macro"]["also_left_out"]["ppv"]) == {"Pneumonia", "Hernia"}


def test_wide_columns_and_their_subgroups(wide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [wide, "--probability_prefix", "p_", "--resamples", 100]
    found = as_json(capsys, *flags, "--by", "view", "--group", "patient")
    rows = list(csv.DictReader(io.StringIO(wide.read_text())))
    for view, part in found["by"]["view"].items():
        own = [row for row in rows if row["view"] == view]
        expected = roc_auc_score([int(r["A"]) for r in own], [float(r["p_A"]) for r in own])
        assert part["labels"]["A"]["auroc"] == pytest.approx(expected, abs=1e-14)
        assert part["n_images"] == len(own)
    assert list(found["by"]["view"]) == ["AP", "PA"] and found["n_groups"] == 20
    assert as_json(capsys, *flags, "--labels", "B")["labels"].keys() == {"B"}
    named = [wide, "--probability_columns", "B=p_A", "--resamples", 100]
    assert as_json(capsys, *named)["labels"].keys() == {"B"}


def test_an_image_with_two_rows_is_told(wide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in files that were joined: it counted twice without a word."""
    flags = [str(wide), "--probability_prefix", "p_", "--resamples", "0"]
    assert main(["metrics", *flags]) == 0
    assert capsys.readouterr().err == ""
    lines = wide.read_text().splitlines()
    wide.write_text("\n".join([*lines, *lines[1:3]]))
    assert main(["metrics", *flags]) == 0
    said = capsys.readouterr().err
    assert "2 of 82 rows have a path that an earlier row has, such as 0.png; each row" in said


def test_one_class_an_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    grades = rng.integers(0, 3, 60)
    p = rng.dirichlet(np.ones(3), 60)
    text = "grade,p_g0,p_g1,p_g2\n"
    text += "".join(f"g{g},{','.join(map(str, row))}\n" for g, row in zip(grades, p, strict=True))
    (tmp_path / "x.csv").write_text(text)
    flags = [tmp_path / "x.csv", "--label_column", "grade", "--probability_prefix", "p_"]
    found = as_json(capsys, *flags)
    answers = p.argmax(axis=1)
    kappa = cohen_kappa_score(grades, answers, weights="quadratic")
    assert found["classes"]["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12)
    expected = balanced_accuracy_score(grades, answers)
    assert found["classes"]["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)
    macro = np.mean([roc_auc_score(grades == grade, p[:, grade]) for grade in range(3)])
    assert found["macro"]["auroc"] == pytest.approx(macro, abs=1e-12)
    assert main(["metrics", *map(str, flags)]) == 0
    assert "quadratic kappa " in capsys.readouterr().out


def test_the_kappa_of_columns_in_byte_order_is_of_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(2)
    classes = np.array([10, 8, 9])
    labels, p = rng.choice(classes, 60), rng.dirichlet(np.ones(3), 60)
    rows = [f"{label},{','.join(map(str, row))}" for label, row in zip(labels, p, strict=True)]
    (tmp_path / "x.csv").write_text("\n".join(["label,p_10,p_8,p_9", *rows]))
    flags = [tmp_path / "x.csv", "--label_column", "label", "--probability_prefix", "p_"]
    found = as_json(capsys, *flags, "--resamples", "100")
    kappa = cohen_kappa_score(labels, classes[p.argmax(axis=1)], weights="quadratic")
    assert found["classes"]["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12)
    low, high = found["classes"]["quadratic_kappa_ci"]
    assert low < kappa < high


def test_images_of_an_ignored_class_are_left_out_of_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As scikit-learn says of the file without their rows."""
    rng = np.random.default_rng(3)
    classes = rng.integers(0, 4, 80)
    p = rng.dirichlet(np.ones(3), 80)
    rows = [f"{'ABCX'[k]},{','.join(map(str, row))}" for k, row in zip(classes, p, strict=True)]
    head = "class,p_A,p_B,p_C"
    (tmp_path / "all.csv").write_text("\n".join([head, *rows]))
    (tmp_path / "kept.csv").write_text("\n".join([head, *(r for r in rows if r[0] != "X")]))
    flags = ["--label_column", "class", "--probability_prefix", "p_", "--threshold", 0.4]
    flags += ["--resamples", 0]
    found = as_json(capsys, tmp_path / "all.csv", *flags, "--ignore_labels", "X")
    kept = as_json(capsys, tmp_path / "kept.csv", *flags)
    known, p = classes[classes < 3], p[classes < 3]
    assert found["n_images"] == 80 and found["classes"]["n_images"] == len(known)
    for place, (name, label) in enumerate(found["labels"].items()):
        assert label.pop("n_unknown") == 80 - len(known)
        del kept["labels"][name]["n_unknown"]
        assert label == kept["labels"][name]
        expected = roc_auc_score(known == place, p[:, place])
        assert label["auroc"] == pytest.approx(expected, abs=1e-12)
    assert found["macro"] == kept["macro"]
    assert found["classes"]["accuracy"] == np.mean(p.argmax(axis=1) == known)


def test_an_ignored_label_is_passed_over_among_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("found,p_A,p_B\nA|X,0.9,0.1\nX,0.2,0.3\nB,0.3,0.8\n")
    flags = ["--label_column", "found", "--label_separator", "|", "--ignore_labels", "X"]
    found = as_json(capsys, file, *flags, "--probability_prefix", "p_", "--resamples", 0)
    counts = [found["labels"]["A"][f"n_{kind}"] for kind in ("positive", "negative", "unknown")]
    assert counts == [1, 2, 0]


def test_a_label_that_has_a_probability_cannot_be_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It counted all the same."""
    file = tmp_path / "x.csv"
    file.write_text("class,p_A,p_B\nA,0.9,0.1\nB,0.3,0.8\n")
    flags = ["--label_column", "class", "--probability_prefix", "p_", "--ignore_labels", "B"]
    error = refusal(capsys, file, *flags, status=2)
    assert "--ignore_labels names B, which is one of the labels A, B" in error


def test_the_tables_for_people_show_what_is_undefined(
    wide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = wide.read_text().splitlines()
    cells = [row.split(",") for row in rows]
    wide.write_text(
        "\n".join(",".join([*c[:4], "B" if c is cells[0] else "0", *c[5:]]) for c in cells)
    )
    out = tmp_path / "out.json"
    flags = ["--probability_prefix", "p_", "--resamples", "100", "--threshold", "A=0.5"]
    assert main(["metrics", str(wide), *flags, "--output", str(out)]) == 0
    text = capsys.readouterr().out
    assert "80 images" in text and "DeLong" in text and "Wilson" in text
    assert "not in the macro means: B" in text
    (line,) = [line for line in text.splitlines() if line.startswith("B ")]
    assert line.split()[:6] == ["B", "0", "80", "0", "-", "-"]
    assert json.loads(out.read_text())["labels"]["B"]["auroc"] is None


def test_ppv_and_npv_where_the_network_is_used(
    wide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One number is that of every label with a threshold; each interval is around its value."""
    flags = [wide, *CALLS, "--resamples", 100, "--prevalence", 0.02]
    found = as_json(capsys, *flags)
    a = found["labels"]["A"]
    hits, rejections = a["sensitivity"], a["specificity"]
    ppv = 0.02 * hits / (0.02 * hits + 0.98 * (1 - rejections))
    assert a["ppv_at_prevalence"] == pytest.approx(ppv, abs=1e-15)
    low, high = a["ppv_at_prevalence_ci"]
    assert low < ppv < high < a["ppv"]
    assert "prevalence" not in found["labels"]["B"]
    assert "ppv_at_prevalence" not in found["macro"]
    by_patient = as_json(capsys, *flags, "--group", "patient", "--by", "view")
    assert by_patient["labels"]["A"]["ppv_at_prevalence"] == a["ppv_at_prevalence"]
    assert by_patient["labels"]["A"]["ppv_at_prevalence_ci"] != [low, high]
    assert "npv_at_prevalence_ci" in by_patient["by"]["view"]["AP"]["labels"]["A"]
    assert main(["metrics", *map(str, flags)]) == 0
    out = capsys.readouterr().out
    assert (
        f"\nlabel  prevalence  PPV there                NPV there\nA      0.02        {ppv:.4f} ["
        in out
    )
    assert out.endswith("; for PPV and NPV at a prevalence MOVER of Wilson's limits\n")


def test_the_net_benefit_of_acting_by_the_predictions(
    wide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every label, at the share of positives of the file or another, in subgroups, too."""
    flags = [wide, "--probability_prefix", "p_", "--resamples", 100, "--net_benefit", "0.5,0.2"]
    found = as_json(capsys, *flags, *CALLS[-2:])["labels"]
    calls, (first, second) = found["A"], found["A"]["net_benefits"]
    images = calls["n_positive"] + calls["n_negative"]
    assert (first["act_from"], second["act_from"], calls["threshold"]) == (0.5, 0.2, 0.5)
    assert first["net_benefit"] == pytest.approx((calls["tp"] - calls["fp"]) / images, abs=1e-15)
    low, high = first["net_benefit_ci"]
    assert low < first["net_benefit"] < high
    more = ["--prevalence", "B=0.02", "--group", "patient", "--by", "view"]
    grouped = as_json(capsys, *flags, *more)
    assert grouped["labels"]["A"]["net_benefits"][0]["net_benefit_ci"] != [low, high]
    (at, _) = grouped["by"]["view"]["AP"]["labels"]["B"]["net_benefits"]
    assert at["of_all"] == pytest.approx(0.02 - 0.98, abs=1e-15)
    assert main(["metrics", *map(str, flags)]) == 0
    head = r"\nlabel  act from  net benefit +of acting on all  gain\n"
    line = rf"A +0\.5 +{first['net_benefit']:.4f} \[{low:.4f}, {high:.4f}\] +{first['of_all']:.4f} "
    assert re.search(head + line, capsys.readouterr().out)


def test_a_number_with_an_underscore_is_refused(
    wide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python reads 0_1 as 1, so that a slip of the pen was the highest probability."""
    said = refusal(capsys, wide, *CALLS[:2], "--threshold", "A=0_1", status=2)
    assert said.endswith("--threshold must be a number or label=value pairs, got 0_1\n")
    edited(wide, 3, 5, "0_1")
    assert 'line 3, column p_A: "0_1" is not a probability' in refusal(capsys, wide, *CALLS)


def test_thresholds_that_no_image_reaches_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "two.csv"
    file.write_text("A,B,p_A,p_B\n1,0,0.4,0.4\n0,1,0.3,0.6\n")
    flags = [str(file), "--probability_prefix", "p_", "--resamples", "0", "--threshold"]
    assert main(["metrics", *flags, "0.5"]) == 0
    assert "no image reaches the threshold of: A\n" in capsys.readouterr().out
    assert main(["metrics", *flags, "A=0.4,B=0.6"]) == 0
    assert "no image reaches" not in capsys.readouterr().out


def test_the_same_seed_gives_the_same_intervals(
    wide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [wide, "--probability_prefix", "p_", "--group", "patient", "--resamples", 100]
    assert as_json(capsys, *flags) == as_json(capsys, *flags)
    other = as_json(capsys, *flags, "--seed", 2)
    assert other["macro"]["auroc_ci"] != as_json(capsys, *flags)["macro"]["auroc_ci"]


def test_the_last_line_names_the_method_of_every_interval(
    wide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["metrics", str(wide), "--probability_prefix", "p_", "--resamples", "100"]
    assert main(flags) == 0
    line = "95 % intervals: DeLong, logit scale for the AUROC, Wilson for shares, else percentile "
    assert line + "bootstrap over images, 100 resamples" in capsys.readouterr().out
    assert main([*flags, "--group", "patient"]) == 0
    line = (
        "95 % intervals: percentile bootstrap over groups, 100 resamples; for shares Wilson over "
    )
    assert line + "groups at 0 and 1\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "column", "cell", "message"),
    [
        (5, 5, "1.2", "line 5, column p_A: 1.2 is outside 0 to 1, as are 1 of 80 rows"),
        (5, 5, "1.0000001", "line 5, column p_A: 1.0000001 is outside 0 to 1, as are 1 of 80"),
        (5, 1, "5.0", "wide.csv: 5 and 5.0 are one number; write ids in one way"),
        (5, 1, "", "line 5, column patient: is blank, as are 1 of 80 rows; --group needs a value"),
        (5, 3, "-1", "these are -1 (uncertain): A (1); --uncertain says what that means"),
        (5, 4, "", "these are blank: B (1); --missing says what that means: ignore or 0"),
        (5, 4, "maybe", 'line 5, column B: "maybe" is not a label'),
        (1, 4, "C", "no column named B (--labels); it has path, patient, view, A, C"),
        (1, 1, "id", "no column named patient (--group); it has path, id"),
        (1, 2, "v", "no column named view (--by); it has path"),
    ],
)
def test_wrong_input_is_one_line(
    wide: Path,
    capsys: pytest.CaptureFixture[str],
    line: int,
    column: int,
    cell: str,
    message: str,
) -> None:
    file = edited(wide, line, column, cell)
    flags = ["--probability_prefix", "p_", "--group", "patient", "--by", "view"]
    assert message in refusal(capsys, file, *flags)


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--probability_prefix", "q_"], 1, "no column begins with q_ (--probability_prefix)"),
        (["--probability_columns", "A=x"], 1, "no column named x (--probability_columns)"),
        (["--probability_prefix", "p_", "--labels", "A,view"], 1, "label view has no column of"),
        (["--probability_prefix", "p_", "--by", "path"], 1, "column path (--by) has 80 values"),
        (["--probability_columns", "Z=p_A"], 1, "where are the labels? It has no columns Z"),
        (["--probability_prefix", "p_", "--threshold", "C=0.5"], 2, "C is not a label; they are"),
        (["--probability_prefix", "p_", "--threshold", "1.5"], 2, "--threshold must be at least 0"),
        (["--probability_prefix", "p_", "--threshold", "A"], 2, "--threshold must be a number or"),
        (
            ["--probability_prefix", "p_", "--prevalence", "0.1"],
            2,
            "--prevalence needs --threshold",
        ),
        (
            [*CALLS, "--prevalence", "2"],
            2,
            "--prevalence must be at least 0 and at most 1, got 2.0",
        ),
        ([*CALLS, "--net_benefit", "0.1,1"], 2, "--net_benefit must be above 0 and below 1, got 1"),
        ([*CALLS, "--net_benefit", "A=0.1"], 2, "--net_benefit must be numbers separated by"),
        ([*CALLS, "--net_benefit", "0.5" + ",0.5" * 100], 2, "takes at most 100 probabilities"),
        ([*CALLS, "--prevalence", "A=0"], 2, "--prevalence must be greater than 0 and below 1"),
        ([*CALLS, "--prevalence", "C=0.1"], 2, "--prevalence: C is not a label; they are A, B"),
        ([*CALLS, "--prevalence", "B=0.1"], 2, "--prevalence: B has no --threshold; it is given"),
        ([], 2, "give one of --probability_prefix and --probability_columns; of predictions.csv"),
        (["--probability_prefix", "p_", "--negative_label", "x"], 2, "goes with --label_column"),
        (
            ["--probability_prefix", "p_", "--label_column", "A", "--labels", "A"],
            2,
            "--labels is for a column a label, --label_column for one column with all",
        ),
        (["--probability_prefix", "p_", "--labels", "A,,B"], 2, "--labels must be names separated"),
        (["--probability_prefix", "p_", "--resamples", "5"], 2, "--resamples must be at least 100"),
    ],
)
def test_wrong_settings_are_one_line(
    wide: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    status: int,
    message: str,
) -> None:
    assert message in refusal(capsys, wide, *flags, status=status)


def test_it_starts_without_torch_scipy_and_scikit_learn(wide: Path) -> None:
    program = (
        "import sys; from densenet121.cli import main; "
        f"main(['metrics', {str(wide)!r}, '--probability_prefix', 'p_', '--resamples', '100']); "
        "print(sorted({'torch', 'scipy', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    done = run_code(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_name_from_outside_is_no_row_and_no_command_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A label "A, line break, macro" made a row of numbers that nothing has computed."""
    name, file = "A\nmacro (9)  1.0000\x1b[8m", tmp_path / "p.csv"
    with file.open("w", newline="") as out:
        rows = [[f"{at}.png", at % 2, (at + 1) / 9] for at in range(8)]
        csv.writer(out).writerows([["path", name, f"p_{name}"], *rows])
    assert main(["metrics", str(file), "--probability_prefix", "p_", "--resamples", "0"]) == 0
    printed = capsys.readouterr().out
    assert r"A\nmacro (9)  1.0000\x1b[8m  4    4" in printed
    assert "\x1b" not in printed and "\nmacro (9)" not in printed


def test_one_column_for_two_classes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its accuracy and kappa were those of the first class, without a word."""
    file = tmp_path / "p.csv"
    file.write_text("class,pa,pb\na,0.9,0.1\nb,0.2,0.8\n")
    flags = [file, "--label_column", "class", "--probability_columns"]
    found = as_json(capsys, *flags, "a=pa,b=pb", "--resamples", 0)
    assert found["classes"]["accuracy"] == 1
    message = refusal(capsys, *flags, "a=pb,b=pb")
    assert "the column pb is that of the classes a and b (--probability_columns)" in message


@pytest.mark.parametrize("flags", [[], ["--label_column", "label"]])
@pytest.mark.parametrize("prefix", ["probability_", "prob_", "probability", "prob"])
def test_predictions_of_one_class_per_image_are_said_to_lack_probabilities(
    prefix: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As eval writes them: no prefix would help."""
    file = tmp_path / "predictions.csv"
    file.write_text("path,label,predicted,probability,rank\na.png,ant,ant,0.9,1\n")
    said = refusal(capsys, file, "--probability_prefix", prefix, *flags)
    assert "has the probability of the predicted class alone" in said


def test_a_single_group_has_no_intervals_and_says_why(
    wide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in range(2, 82):
        edited(wide, line, 1, "7")
    assert main(["metrics", str(wide), *CALLS, "--group", "patient"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("80 images of 1 group\n")
    assert "\nall images are of one group, so that only shares of 0 or 1 have an interval\n" in out
