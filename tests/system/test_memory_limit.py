"""A machine without enough memory: one line."""

import resource
import subprocess
import sys

import pytest

from densenet121.cli import main
from densenet121.utils.errors import InputError

from helpers.commands import environment


@pytest.mark.parametrize("kilobytes", [300_000, 600_000])
def test_a_library_that_finds_no_memory_is_one_line(kilobytes: int) -> None:
    limit = (kilobytes * 1024, kilobytes * 1024)
    done = subprocess.run(
        [sys.executable, "-m", "densenet121", "predict", "a.png", "--pretrained", "w.safetensors"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("densenet121: not enough memory (")
    assert "failed to map segment" in done.stderr


def test_a_start_without_open_files_is_one_line() -> None:
    """Three are open already; the modules of the command line need more."""
    starts = "import resource, sys, densenet121.__main__ as program; "
    starts += (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); sys.exit(program.start(['demo']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", starts],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("densenet121: cannot start: [Errno 24] Too many open files")
    assert done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "an allocation failed"),
        (RuntimeError("could not create a primitive"), "could not create a primitive"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (OSError("libgomp.so.1: failed to map segment"), "libgomp.so.1: failed to map"),
        (OSError(12, "Cannot allocate memory"), "[Errno 12] Cannot allocate memory"),
    ],
)
def test_other_ways_to_say_so_are_one_line_and_other_errors_are_not_hidden(
    error: Exception,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given: list[Exception] = [error, RuntimeError("a fault of the program")]

    def fails(_: object) -> int:
        raise given.pop(0)

    monkeypatch.setattr("densenet121.commands.demo.run", fails)
    assert main(["demo"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("densenet121: not enough memory (") and word in said
    with pytest.raises(RuntimeError, match="a fault of the program"):
        main(["demo"])


class PanicException(BaseException):
    """Libraries in Rust raise one of this name."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("no room"), "not enough memory (no room); everything saved before is intact"),
        (OSError(24, "Too many open files"), "[Errno 24] Too many open files"),
        (PermissionError(13, "Permission denied", "/x/y"), "/x/y: Permission denied"),
        (
            PanicException("PyObject pointer is null"),
            "a library panicked (PyObject pointer is null), as where memory ends; everything saved "
            "is intact",
        ),
    ],
)
@pytest.mark.parametrize("fails_too", [MemoryError(), OSError(24, "Too many open files")])
def test_an_error_is_one_line_where_even_the_names_of_flags_cannot_be_found(
    error: BaseException,
    said: str,
    fails_too: Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Found by `make torture`: the limit that ended the work holds while its end is told."""

    def fails(_: object) -> int:
        monkeypatch.setattr("densenet121.cli.labels_of", cannot)
        raise error

    def cannot(_: object) -> None:
        raise fails_too

    monkeypatch.setattr("densenet121.commands.demo.run", fails)
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == f"densenet121: {said}\n"


def test_flags_are_named_where_memory_does_not_suffice_to_read_about_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> int:
        monkeypatch.setattr("densenet121.config.flags._found", {})
        monkeypatch.setattr("densenet121.config.flags.get_type_hints", cannot)
        raise InputError("pass `per_batch_size` 4, `gradient_accumulation` 8 or `source`")

    def cannot(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("densenet121.commands.demo.run", fails)
    assert main(["demo"]) == 1
    said = "pass --per_batch_size 4, --gradient_accumulation 8 or SOURCE"
    assert capsys.readouterr().err == f"densenet121: {said}\n"
