"""Reading the predictions.csv of an evaluation back."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from densenet121.utils.errors import InputError

_MAX_BYTES = 2**31


class Row(NamedTuple):
    """What was said of one image; label and predicted are class names."""

    label: str
    predicted: str

    @property
    def correct(self) -> bool:
        """The label was predicted."""
        return self.label == self.predicted


@dataclass(frozen=True)
class EvaluationFile:
    """The rows of a predictions.csv by the path of their image."""

    path: Path
    rows: dict[str, Row]


def read_evaluation(path: Path) -> EvaluationFile:
    """Read the results of eval: a predictions.csv or the folder that holds one.

    Raises:
        InputError: missing, unreadable, not such a file, or without an image.
    """
    file = path / "predictions.csv" if path.is_dir() else path
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise InputError(f"{file}: more than {_MAX_BYTES} bytes")
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); name a folder that eval wrote"
        ) from None
    rows: dict[str, Row] = {}
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            name = row["path"]
            if not name or not row["label"] or not row["predicted"] or name in rows:
                raise InputError(f"{file}: line {reader.line_num} is incomplete or a repetition")
            rows[name] = Row(row["label"], row["predicted"])
    except (csv.Error, KeyError) as error:
        raise InputError(f"{file}: not a predictions.csv of eval ({error})") from None
    if not rows:
        raise InputError(f"{file}: no image in it")
    return EvaluationFile(file, rows)
