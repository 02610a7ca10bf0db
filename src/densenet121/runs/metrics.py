"""metrics.jsonl: one JSON object per line, in order of time."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from densenet121.tasks import AveragedValidation, Task, Validation
from densenet121.utils.errors import InputError
from densenet121.utils.files import read_input, write_atomic
from densenet121.utils.json_values import count, number, parse_json

_KINDS = ("train", "eval", "eval_ema")


class TrainRow(NamedTuple):
    """One "train" line; numbers that were not finite are NaN."""

    epoch: int
    step: int
    loss: float
    lr: float
    images_per_second: float
    data_wait: float


Row = TrainRow | Validation | AveragedValidation


class MetricsFile:
    """The file while a run writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep_until(
        self,
        step: int,
        evaluated_epochs: int,
        source: Path | None = None,
        renumbered: Callable[[int], int] = int,
    ) -> None:
        """Drop what a killed run wrote after the checkpoint that it is resumed from.

        Epochs may have had other numbers of steps, so steps count only within the epoch that was
        interrupted.

        Args:
            step: steps done at the checkpoint; training rows of earlier steps are kept.
            evaluated_epochs: epochs validated at the checkpoint; their rows are kept.
            source: the metrics file of the interrupted run, if it is another file.
            renumbered: step of the interrupted epoch to its number in the resumed run.
        """
        source = source or self.path
        kept = []
        for row in read_rows(source) if source.is_file() else []:
            if row["kind"] not in _KINDS:
                continue
            if row["epoch"] < evaluated_epochs:
                kept.append(row)
            elif row["kind"] == "train" and row["epoch"] == evaluated_epochs and row["step"] < step:
                kept.append(row | {"step": renumbered(row["step"])})
        write_atomic(self.path, "".join(_line(row) for row in kept).encode())

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(row))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows; an incomplete last line, as left by a killed run, is dropped.

    Raises:
        InputError: another line is no row: not JSON, without its place, or with a number that JSON
            does not have, such as NaN.
    """
    rows = []
    lines = read_input(path).splitlines()
    for line_number, line in enumerate(lines, start=1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif line_number != len(lines):
            raise InputError(
                f"{path}: line {line_number} is damaged; remove it to continue without it"
            )
    return rows


def _row(line: bytes) -> dict[str, Any] | None:
    """The row, or None if it cannot be kept: it has no place, or could not be written again."""
    try:
        row = parse_json(line)
        count(row["epoch"])
        count(row["step"])
        _line(row)
        return row if isinstance(row["kind"], str) else None
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def parse(text: str, task: Task) -> tuple[list[Row], list[int]]:
    """The valid rows, and the numbers of lines that cannot be read.

    A resumed run repeats some steps; the last row of a step is used.
    """
    rows: list[Row] = []
    unreadable: list[int] = []
    for line_number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        row = _parse_line(line, task)
        if row is None:
            unreadable.append(line_number)
            continue
        while rows and _is_repeated_by(rows[-1], row):
            rows.pop()
        rows.append(row)
    return rows, unreadable


def _is_repeated_by(earlier: Row, row: Row) -> bool:
    """Whether a resumed run wrote ``row`` again, or a row before it.

    It may have other numbers of steps, so those of different epochs are not compared.
    """
    return _place(earlier) >= _place(row)


def _place(row: Row) -> tuple[int, int, int]:
    kind = (TrainRow, Validation, AveragedValidation).index(type(row))
    return row.epoch, kind, row.step if kind == 0 else 0


def _parse_line(line: str, task: Task) -> Row | None:
    """The row, or None for a line that is truncated, damaged or of an unknown kind."""
    try:
        found = parse_json(line)
        if found["kind"] == "train":
            return TrainRow(
                count(found["epoch"]),
                count(found["step"]),
                *(number(found.get(name)) for name in TrainRow._fields[2:]),
            )
        if found["kind"] in ("eval", "eval_ema"):
            kind = Validation if found["kind"] == "eval" else AveragedValidation
            epoch, step = count(found["epoch"]), count(found["step"])
            return kind(epoch, step, number(found.get("loss")), task.check_metrics(found))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None
    return None


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
