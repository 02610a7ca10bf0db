"""Files that are whole or not there, the original's log, and metrics that survive a kill."""

import contextlib
import errno
import json
import math
import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from densenet121.runs.metrics import MetricsFile, read_rows
from densenet121.utils.errors import InputError
from densenet121.utils.files import (
    is_special,
    is_taken,
    new_folder,
    read_input,
    remove_temporary_files,
    scratch_folder,
    sync_folder,
    temporary_beside,
    write_atomic,
    write_json,
    write_together,
)
from densenet121.utils.logging import log, log_settings, quiet, run_log

from helpers.commands import no_file_beyond

STAMP = "2020-08-22_time_16_58_56"
# 2020-08-22 16:58:56,617:INFO:..., as in the original's README
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}:(INFO|WARNING|ERROR):(.*)")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def messages(path: Path) -> list[tuple[str, str]]:
    """Level and text of each line of a log file, all of which must have the original's format."""
    found = [LINE.fullmatch(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(match[1], match[2]) if match else ("no match", "") for match in found]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with no_file_beyond(1000), pytest.raises(OSError, match="File too large") as told:
        write_atomic(tmp_path / "large", bytes(2000))
    assert told.value.filename == str(tmp_path / "large")
    with pytest.raises(FileNotFoundError) as told:
        write_atomic(tmp_path / "none" / "file", b"")
    assert told.value.filename == str(tmp_path / "none" / "file")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as told:
        write_atomic(tmp_path / "folder", b"")
    assert (told.value.filename, told.value.filename2) == (str(tmp_path / "folder"), None)
    assert str(told.value) == f"[Errno 21] Is a directory: '{tmp_path / 'folder'}'"
    assert names(tmp_path) == ["folder"]


def test_a_file_is_written_where_folders_cannot_be_synced() -> None:
    """As on file systems of a network; Linux's own /proc is one of these."""
    with pytest.raises(OSError, match="Invalid argument"):
        folder = os.open("/proc", os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    sync_folder(Path("/proc"))


def test_a_folder_that_cannot_be_synced_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fails(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="Input/output error") as told:
        write_atomic(tmp_path / "file", b"whole")
    assert told.value.filename == str(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"whole"


@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256)) * 1000], ids=len)
def test_a_file_is_written_and_replaced_whole(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, data)
    assert path.read_bytes() == data
    write_atomic(path, data + b"more")
    assert path.read_bytes() == data + b"more"
    assert names(tmp_path) == ["file"]


def test_a_reader_keeps_the_file_it_opened(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"before")
    with path.open("rb") as reader:
        write_atomic(path, b"after")
        assert reader.read() == b"before"
    assert path.read_bytes() == b"after"


@pytest.mark.parametrize("earlier", [None, b"earlier"])
def test_a_full_disk_leaves_what_was_there(earlier: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if earlier is not None:
        path.write_bytes(earlier)
    with no_file_beyond(1000), pytest.raises(OSError, match="File too large"):
        write_atomic(path, bytes(100_000))
    assert names(tmp_path) == ([] if earlier is None else ["file"])
    assert earlier is None or path.read_bytes() == earlier


def test_files_that_belong_together_are_all_as_before_where_one_has_no_room(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    write_together({first: b"1", second: b"1"})
    with no_file_beyond(1000), pytest.raises(OSError, match="File too large") as told:
        write_together({first: b"2", second: bytes(2000)})
    assert told.value.filename == str(second)
    assert (names(tmp_path), first.read_bytes(), second.read_bytes()) == (["a", "b"], b"1", b"1")


def test_of_a_full_disk_the_error_names_what_was_to_be_written(tmp_path: Path) -> None:
    """Not nothing, which would mean the standard output, nor the folder that is removed."""
    folder, weights = tmp_path / "out", tmp_path / "w.pth"
    with (
        no_file_beyond(1000),
        pytest.raises(OSError, match="File too large") as told,
        new_folder(folder) as new,
    ):
        write_atomic(new / "a.tar", bytes(100_000))
    assert told.value.filename == str(folder / "a.tar")
    for path, begin in ((folder, new_folder), (weights, scratch_folder)):
        with (
            no_file_beyond(1000),
            pytest.raises(OSError, match="File too large") as told,
            begin(path) as new,
        ):
            (new / "w.pth").write_bytes(bytes(100_000))
        assert told.value.filename == str(path)
    assert names(tmp_path) == []


def test_a_folder_in_the_way_and_a_missing_one_are_errors(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "folder", b"x")
    assert names(tmp_path) == ["folder"]
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "none" / "file", b"x")


@pytest.mark.parametrize("linked", [False, True])
def test_a_device_or_pipe_is_not_replaced_by_a_file(linked: bool, tmp_path: Path) -> None:
    pipe = path = tmp_path / "pipe"
    os.mkfifo(pipe)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(pipe)
    with pytest.raises(OSError, match="is a device or a pipe, not a file") as error:
        write_atomic(path, b"content")
    assert error.value.filename == str(path)
    assert pipe.is_fifo() and path.is_symlink() == linked


@pytest.mark.parametrize("name", ["null", "full", "stdout", "stderr"])
def test_what_all_programs_share_is_no_place_for_a_file(name: str) -> None:
    assert is_special(Path("/dev", name))


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomic(tmp_path / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_a_link_in_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "of another user"
    other.write_bytes(b"kept")
    temporary_beside(tmp_path / "w.ckpt", "tmp").symlink_to(other)
    write_atomic(tmp_path / "w.ckpt", b"new")
    assert (other.read_bytes(), (tmp_path / "w.ckpt").read_bytes()) == (b"kept", b"new")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["of another user", "w.ckpt"]


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = [f".0-1_5.ckpt.{gone.pid}.tmp", f".run.json.{os.getpid()}.tmp", ".x.tmp"]
    others = ["mine.tmp", ".hidden", "0-1_5.ckpt", f".run.json.{os.getppid()}.tmp"]
    for name in (*left, *others):
        (tmp_path / name).touch()
    remove_temporary_files(tmp_path)
    assert names(tmp_path) == sorted(others)


def test_what_a_killed_process_left_goes_with_the_next_writing(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".file.{gone.pid}.tmp").touch()
    (tmp_path / f".file.{gone.pid}.partial").mkdir()
    (tmp_path / f".file.{gone.pid}.partial" / "x").touch()
    others = [f".file.{os.getppid()}.tmp", ".file.x.tmp", f".other.{gone.pid}.tmp"]
    for name in others:
        (tmp_path / name).touch()
    write_atomic(tmp_path / "file", b"x")
    assert names(tmp_path) == sorted([*others, f".file.{gone.pid}.partial", "file"])
    (tmp_path / "file").unlink()
    with new_folder(tmp_path / "file") as folder:
        (folder / "y").touch()
    assert names(tmp_path) == sorted([*others, "file"])
    assert names(tmp_path / "file") == ["y"]


@pytest.mark.parametrize("name", ["x" * 255, "x" * 101, "\N{SNOWMAN}" * 85])
def test_a_name_may_be_as_long_as_the_system_takes_it(name: str, tmp_path: Path) -> None:
    write_atomic(tmp_path / name, b"x")
    assert (names(tmp_path), (tmp_path / name).read_bytes()) == ([name], b"x")
    (tmp_path / name).unlink()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for kind in ("tmp", "partial"):
        left = temporary_beside(tmp_path / name, kind).name
        (tmp_path / left.replace(str(os.getpid()), str(gone.pid))).mkdir()
        temporary_beside(tmp_path / name, kind)
    with scratch_folder(tmp_path / name):
        pass
    assert names(tmp_path) == []
    with new_folder(tmp_path / name) as folder:
        (folder / "y").touch()
    assert names(tmp_path) == [name]


def test_where_nothing_can_be_made_the_error_names_what_was_to_be_written(tmp_path: Path) -> None:
    """Of a read-only disk it named the temporary file, which cannot be removed there either."""
    (tmp_path / "file").touch()
    target = tmp_path / "file" / "new"
    with pytest.raises(NotADirectoryError) as caught:
        write_atomic(target, b"x")
    assert caught.value.filename == str(target)
    for begin in (new_folder, scratch_folder):
        with pytest.raises(NotADirectoryError) as caught, begin(target):
            pass
        assert caught.value.filename == str(target)


def test_a_new_folder_that_another_process_wrote_meanwhile_is_named_and_kept(
    tmp_path: Path,
) -> None:
    target = tmp_path / "new"
    with pytest.raises(OSError, match="not empty") as caught, new_folder(target):
        target.mkdir()
        (target / "theirs").touch()
    assert (caught.value.filename, caught.value.filename2) == (str(target), None)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == [
        "new",
        "new/theirs",
    ]


def test_a_new_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "new") as folder:
        (folder / "x").touch()
        raise KeyError
    assert names(tmp_path) == []


@pytest.mark.parametrize("is_link", [False, True])
def test_an_empty_folder_and_a_link_to_one_stay_and_are_filled_whole_or_not_at_all(
    is_link: bool, tmp_path: Path
) -> None:
    """A volume of a container is an empty folder that can be neither removed nor replaced."""
    there = tmp_path / "there"
    there.mkdir()
    before, path = there.stat(), there
    if is_link:
        path = tmp_path / "link"
        path.symlink_to("there")
    others = names(tmp_path)
    with pytest.raises(KeyError), new_folder(path) as folder:
        (folder / "x").touch()
        raise KeyError
    assert names(tmp_path) == others and names(there) == []
    with pytest.raises(OSError, match="not empty"), new_folder(path) as folder:
        (folder / "x").write_bytes(b"new")
        (there / "x").write_bytes(b"of another")
    assert names(there) == ["x"] and (there / "x").read_bytes() == b"of another"
    (there / "x").unlink()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (there / f".there.{gone.pid}.partial").mkdir()
    assert not is_taken(path)
    with new_folder(path) as folder:
        assert is_taken(path)  # by this process
        (folder / "x").touch()
        (folder / "y").mkdir()
    assert names(tmp_path) == others and names(there) == ["x", "y"] and is_taken(path)
    assert os.path.samestat(before, there.stat())


def test_a_link_that_leads_nowhere_gets_its_folder_and_one_to_itself_is_refused(
    tmp_path: Path,
) -> None:
    (tmp_path / "link").symlink_to("new")
    (tmp_path / "loop").symlink_to("loop")
    with new_folder(tmp_path / "link") as folder:
        (folder / "x").touch()
    assert names(tmp_path / "new") == ["x"]
    with pytest.raises(OSError, match="loop"), new_folder(tmp_path / "loop"):
        pass
    assert names(tmp_path) == ["link", "loop", "new"]


def test_json_is_readable_by_people_and_by_programs(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None, True], "a": "b\xe4r \u732b", "path": os.fsdecode(b"\xff.jpg")}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert text.startswith('{\n  "b": [\n')
    assert text.endswith("\n}\n")
    assert "b\xe4r \u732b" in text


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_json_refuses_what_other_readers_do_not_take(bad: float, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": bad})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.0}
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        metrics.write({"loss": bad})
    assert not metrics.path.exists() or metrics.path.read_bytes() == b""


def test_log_lines_and_the_name_of_the_file_are_the_originals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_log(tmp_path, STAMP, 0) as path:
        log.info("epoch[%d], iter[%d], loss:%.3f, mean_fps:%.2f imgs/sec", 0, 5003, 4.3671, 6301.1)
        log.warning("b\xe4r")
    assert path == tmp_path / "2020-08-22_time_16_58_56_rank_0.log"
    assert messages(path) == [
        ("INFO", "epoch[0], iter[5003], loss:4.367, mean_fps:6301.10 imgs/sec"),
        ("WARNING", "b\xe4r"),
    ]
    assert capsys.readouterr().out == path.read_text(encoding="utf-8")


def test_settings_are_listed_as_in_the_original(tmp_path: Path) -> None:
    with run_log(tmp_path, STAMP, 1) as path:
        log_settings({"lr": 0.1, "pretrained": None})
    assert [text for _, text in messages(path)] == [
        "Args:",
        "--> lr: 0.1",
        "--> pretrained: None",
        "",
    ]


@pytest.mark.parametrize(("rank", "shown"), [(0, True), (1, False), (7, False), (8, True)])
def test_every_eighth_rank_shows_its_log(
    rank: int, shown: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with run_log(tmp_path, STAMP, rank) as path:
        log.info("here")
    assert path.name == f"{STAMP}_rank_{rank}.log"
    assert messages(path) == [("INFO", "here")]
    assert ("here" in capsys.readouterr().out) == shown


def test_a_resumed_run_goes_on_in_its_log(tmp_path: Path) -> None:
    with run_log(tmp_path, STAMP, 1) as first:
        log.info("one")
    with run_log(tmp_path, "2020-08-23_time_00_00_00", 1) as again:
        log.info("two")
    assert again == first
    assert messages(first) == [("INFO", "one"), ("INFO", "two")]


def test_after_a_run_the_log_is_as_it_was(tmp_path: Path) -> None:
    before = (list(log.handlers), log.level, log.propagate)
    with pytest.raises(ZeroDivisionError), run_log(tmp_path, STAMP, 0) as path:
        log.info("inside")
        raise ZeroDivisionError
    assert (list(log.handlers), log.level, log.propagate) == before
    log.error("outside")
    assert messages(path) == [("INFO", "inside")]


def test_runs_in_several_threads_have_a_log_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (list(log.handlers), log.level, log.propagate)
    both, first_ended = threading.Barrier(2, timeout=10), threading.Event()
    folders = [tmp_path / "0", tmp_path / "1"]

    def go(number: int) -> None:
        folders[number].mkdir()
        with quiet() if number == 0 else contextlib.nullcontext(), run_log(folders[number], "x", 0):
            both.wait()
            log.info("run %d", number)
            both.wait()
            if number:
                first_ended.wait(10)
                log.info("after the other")

    threads = [threading.Thread(target=go, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    threads[0].join()
    first_ended.set()
    threads[1].join()
    expected = [[("INFO", "run 0")], [("INFO", "run 1"), ("INFO", "after the other")]]
    assert [messages(folder / "x_rank_0.log") for folder in folders] == expected
    assert capsys.readouterr().out == (folders[1] / "x_rank_0.log").read_text(encoding="utf-8")
    assert (list(log.handlers), log.level, log.propagate) == before


def test_a_name_that_is_not_utf8_is_logged_all_the_same(tmp_path: Path) -> None:
    with run_log(tmp_path, STAMP, 1) as path:
        log.info("%s: not a readable image", os.fsdecode(b"caf\xe9.jpg"))
    assert messages(path) == [("INFO", r"caf\udce9.jpg: not a readable image")]


def row(kind: str, epoch: int, step: int) -> dict[str, Any]:
    return {"kind": kind, "epoch": epoch, "step": step, "loss": 0.1}


# Two epochs of three steps, the second one not yet validated.
ROWS = [
    *(row("train", 0, 0), row("train", 0, 2), row("eval", 0, 2)),
    *(row("train", 1, 3), row("train", 1, 5)),
]


@pytest.fixture
def metrics(tmp_path: Path) -> MetricsFile:
    written = MetricsFile(tmp_path / "metrics.jsonl")
    for one in ROWS:
        written.write(one)
    return written


def test_metrics_are_one_object_a_line_in_order(metrics: MetricsFile) -> None:
    lines = metrics.path.read_text().splitlines()
    assert [json.loads(line) for line in lines] == read_rows(metrics.path) == ROWS


@pytest.mark.parametrize(
    ("step", "evaluated_epochs", "kept"),
    [
        (6, 1, [0, 1, 2, 3, 4]),  # all was done
        (5, 1, [0, 1, 2, 3]),
        (3, 1, [0, 1, 2]),  # validated, the next epoch not begun
        (3, 0, [0, 1]),  # saved before the validation, which will come again
        (1, 0, [0]),
        (0, 0, []),  # a fresh run
    ],
)
def test_a_resumed_run_keeps_what_its_checkpoint_has_seen(
    step: int, evaluated_epochs: int, kept: list[int], metrics: MetricsFile
) -> None:
    metrics.keep_until(step, evaluated_epochs)
    assert read_rows(metrics.path) == [ROWS[i] for i in kept]
    metrics.write(row("train", 9, 99))
    assert read_rows(metrics.path)[-1] == row("train", 9, 99)


def test_a_run_whose_epochs_get_other_steps_keeps_the_rows_of_its_epochs(
    metrics: MetricsFile,
) -> None:
    # Epochs of 3 steps become epochs of 2: step 4, the second of epoch 1, is now step 3.
    metrics.keep_until(5, 1, renumbered=lambda step: step - 1)
    kept = [*ROWS[:3], row("train", 1, 2)]
    assert read_rows(metrics.path) == kept
    for one in (row("train", 1, 3), row("train", 2, 4)):
        metrics.write(one)
    metrics.keep_until(4, 2)
    assert read_rows(metrics.path) == [*kept, row("train", 1, 3)]


def test_metrics_go_on_in_another_folder(metrics: MetricsFile, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    moved = MetricsFile(tmp_path / "new" / "metrics.jsonl")
    moved.keep_until(3, 1, source=metrics.path)
    assert read_rows(moved.path) == ROWS[:3]
    assert read_rows(metrics.path) == ROWS
    moved.keep_until(3, 1, source=tmp_path / "none")
    assert read_rows(moved.path) == []


def test_a_last_line_cut_anywhere_is_dropped(metrics: MetricsFile) -> None:
    whole = metrics.path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(2, last):  # 1 cuts the newline alone, and no content is lost
        metrics.path.write_bytes(whole[:-cut])
        assert read_rows(metrics.path) == ROWS[:-1]
    metrics.path.write_bytes(whole[:-1])
    assert read_rows(metrics.path) == ROWS
    metrics.path.write_bytes(whole + b"\0" * 50)  # as a power cut may leave it
    metrics.keep_until(6, 1)
    assert metrics.path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage",
    [
        *(b"{", b"\xff", b"5", b"", b'"kind"', b"{}", b'{"kind": "eval", "epoch": 0}'),
        b'{"kind": "eval", "epoch": "0", "step": 2}',
        b'{"kind": "eval", "epoch": 0, "step": null}',
        b'{"kind": [], "epoch": 0, "step": 2}',
        b'{"kind": "eval", "epoch": 0, "step": 2, "loss": NaN}',
    ],
)
def test_any_other_damaged_line_is_named(damage: bytes, metrics: MetricsFile) -> None:
    lines = metrics.path.read_bytes().splitlines()
    lines[2] = damage
    metrics.path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl: line 3 is damaged"):
        read_rows(metrics.path)


def test_an_input_that_is_a_pipe_is_read_while_a_program_writes(tmp_path: Path) -> None:
    """As of ``--config <(...)``; without a writer it would be waited for for ever."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="is a pipe into which nothing is written"):
        read_input(pipe)
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as opened:
        opened.write(b"lr: 1\n")
    assert read_input(Path(f"/dev/fd/{reading}")) == b"lr: 1\n"
    os.close(reading)
    assert read_input(Path(os.devnull)) == b""
