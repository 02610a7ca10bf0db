"""The commands of the tutorials run, from top to bottom."""

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from helpers import forking
from helpers.commands import REPOSITORY, SHARED, environment

pytestmark = pytest.mark.tutorials
TUTORIALS = REPOSITORY / "docs" / "tutorials"
PAGES = sorted(path.stem for path in TUTORIALS.glob("*.md"))
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
# The same commands in seconds: fewer images and epochs, and so more doubt; the run is stopped as
# soon as there is a checkpoint.
SHORTER = [
    (r"enumerate\(zip\(digits.images, digits.target\)\)", r"list(\g<0>)[:500]"),
    (r"--target_accuracy [\d.]+", "--target_accuracy 0.1"),
    (r"--max_epoch \d+", "--max_epoch 1"),
    (r"sleep \d+", "until ls output/stopped/*.ckpt; do sleep 0.1; done > found.log 2>&1"),
]


def run_page(
    name: str, folder: Path, shorter: Sequence[tuple[str, str]] = (), language: str = "bash"
) -> str:
    """Run the blocks of a page in one shell, after writing its files; return the output."""
    text = (TUTORIALS / f"{name}.md").read_text(encoding="utf-8")
    for pattern, replacement in shorter:
        text = re.sub(pattern, replacement, text)
    blocks = BLOCK.findall(text)
    work = folder / "work"
    work.mkdir(exist_ok=True)
    for _, title, content in blocks:
        if title:
            (work / title).write_text(content, encoding="utf-8")
    script = "".join(content for tag, _, content in blocks if tag == language)
    port = free_port()
    done = subprocess.run(
        ["bash", "-e", "-u", "-c", STOP_SERVER + script.replace("8000", str(port))],
        cwd=work,
        env=environment(PATH=commands(folder), PET_MASTER_PORT=str(free_port())),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    (folder / "output.txt").write_text(done.stdout, encoding="utf-8")
    assert done.returncode == 0, done.stdout
    return done.stdout


STOP_SERVER = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"


def commands(folder: Path) -> str:
    """A PATH on which the page's commands are those of this Python; `densenet121` is forked."""
    client = Path(forking.__file__).with_name("fork_client.py")
    shims = {
        "densenet121": f'-I -S "{client}" "{forking.forking_socket()}" densenet121',
        "torchrun": "-m torch.distributed.run",
        "python": "",
    }
    for name, arguments in shims.items():
        shim = folder / "bin" / name
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        shim.chmod(0o755)
    return f"{folder / 'bin'}:{os.environ['PATH']}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_first_tutorial_ends_with_an_answer_of_the_server(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the page asks the server with curl, which is not installed")
    output = run_page("first-model", tmp_path, SHORTER)
    assert re.search(r'\{"predictions":\[\{"name":"","predicted":.*"prediction_set":\[', output)


@pytest.mark.slow
def test_the_tutorial_on_the_weights_of_others_runs(tmp_path: Path) -> None:
    output = run_page("others-weights", tmp_path, SHORTER)
    assert "its 4 classes differ from the 3 of the data" in output
    assert re.search(r"digit_0/0000\.png  digit_[0169] ", output)  # by the names in names.txt


def test_the_move_from_mindspore_runs(tmp_path: Path) -> None:
    output = run_page("mindspore", tmp_path, SHORTER)
    assert "weights of  MindSpore (model zoo)" in output
    counts = re.findall(r"eval: top1_correct=(\d+), tot=(\d+)", output)
    assert counts[1] == counts[0]  # of the weights before and after the conversion
    assert "tuned.ckpt: densenet121, variant model_zoo" in output


@pytest.mark.slow
def test_the_tutorial_on_resuming_ends_with_the_bits_it_promises(tmp_path: Path) -> None:
    output = run_page("resume", tmp_path, SHORTER)
    assert "stopped by a signal after" in output
    assert "resumed from" in output
    digests = re.findall(r'"digest": "(\w+)"', output)
    assert len(digests) == 2
    assert len(set(digests)) == 1


@pytest.mark.slow
def test_the_tutorial_on_several_labels_finds_them_in_patients_it_has_not_seen(
    tmp_path: Path,
) -> None:
    output = run_page("several-labels", tmp_path, LABELS_SHORTER)
    check_answers(output, tmp_path / "work")
    assert auroc_of(tmp_path / "work/output/test/eval.json") > 0.65


LABELS_SHORTER = [(r"range\(200\)", "range(100)"), (r"--max_epoch \d+", "--max_epoch 7")]
# As far as the training, of which the labels are shuffled first.
SHUFFLED = [
    *LABELS_SHORTER,
    (r"densenet121 train ", r"python shuffle_labels.py\n\g<0>"),
    (
        r"lists/train.csv --val_dir lists/val.csv( \\\n    --config labels.yaml --recipe)",
        r"lists/shuffled.csv --val_dir lists/val.csv\1",
    ),
    (r"last_calibrated", "last"),
    (r"## Predict(.|\n)*", ""),
]
# Without weights to start from, and on few images: those of some findings are needed for the
# operating points.
NIH_SHORTER = [
    (r"--recipe finetune --pretrained \S+", "--recipe scratch_small --image_size 64"),
    (r"--val 0.1", "--val 0.3"),
    (r"--max_epoch \d+", "--max_epoch 6"),
]


@pytest.mark.slow
def test_the_commands_for_nih_chestxray14_run_on_some_of_its_images(tmp_path: Path) -> None:
    """They are laid out as the public set is, with its header and its two lists."""
    source = SHARED / "data" / "nih-chest"
    if not source.exists():
        pytest.skip("needs the chest X-rays in ../shared/data/nih-chest")
    lay_out(source, tmp_path / "work")
    run_page("several-labels", tmp_path, NIH_SHORTER, language="sh")
    auroc_of(tmp_path / "work/output/nih_test/eval.json")


@pytest.mark.slow
def test_on_shuffled_labels_the_auroc_is_that_of_a_guess(tmp_path: Path) -> None:
    """The control that the guide describes: nothing but labels tells the network what to find."""
    guide = (REPOSITORY / "docs/guides/several-labels.md").read_text(encoding="utf-8")
    ((_, title, script),) = [block for block in BLOCK.findall(guide) if block[1]]
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / title).write_text(script, encoding="utf-8")
    run_page("several-labels", tmp_path, SHUFFLED)
    before, after = (rows_of(tmp_path / "work/lists" / f"{x}.csv") for x in ("train", "shuffled"))
    labels = [sorted(row.pop("Finding Labels") for row in rows) for rows in (before, after)]
    assert (before, labels[0]) == (after, labels[1])
    found = json.loads((tmp_path / "work/output/test/eval.json").read_text())
    low, high = found["macro"]["auroc_ci"]
    assert low < 0.5 < high


def lay_out(source: Path, work: Path) -> None:
    (work / "images").mkdir(parents=True)
    columns = "Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"
    # The brackets hold commas that are not quoted, and the line ends with one.
    sizes = "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    lines = [f"Image Index,{columns},{sizes}"]
    for part, list_name in (("train", "train_val_list"), ("val", "test_list")):
        rows = rows_of(source / part / "labels.csv")
        for row in rows:
            file = source / part / row["path"]
            (work / "images" / file.name).symlink_to(file)
            cells = [row.get(column, "0") for column in columns.split(",")]
            lines.append(",".join([file.name, *cells, "256", "256", "0.5", "0.5", ""]))
        names = "\n".join(Path(row["path"]).name for row in rows)
        (work / f"{list_name}.txt").write_text(names, encoding="utf-8")
    table = work / "Data_Entry_2017_v2020.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def check_answers(output: str, work: Path) -> None:
    """No patient is in two parts, and every way to ask gives the same decisions."""
    patients = {
        part: {row["Patient ID"] for row in rows_of(work / "lists" / f"{part}.csv")}
        for part in ("train", "val", "test")
    }
    assert sum(map(len, patients.values())) == len(set.union(*patients.values()))
    assert "FAULT" not in output
    (served,) = re.findall(r'\{"predictions":\[(\{.*\})\]\}', output)
    (asked,) = re.findall(r'^\{"path": .*$', output, re.MULTILINE)
    assert json.loads(served)["positive"] == json.loads(asked)["positive"]
    assert "<h2>Operating points</h2>" in (work / "output/test/report.html").read_text()


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as content:
        return list(csv.DictReader(content))


def auroc_of(file: Path) -> float:
    """The mean AUROC, of which the interval over patients is above a guess."""
    found = json.loads(file.read_text())
    assert found["macro"]["auroc_ci"][0] > 0.5
    assert 1 < found["n_groups"] < found["total"]
    return float(found["macro"]["auroc"])


def test_no_tutorial_is_left_out() -> None:
    assert PAGES == ["first-model", "mindspore", "others-weights", "resume", "several-labels"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_whole_tutorial_runs_as_written(name: str, tmp_path: Path) -> None:
    output = run_page(name, tmp_path)
    if name == "several-labels":
        assert auroc_of(tmp_path / "work/output/test/eval.json") > 0.8
        return
    accuracies = re.findall(r"INFO:best: .*acc=([\d.]+)%", output)
    assert max(map(float, accuracies)) > 90
