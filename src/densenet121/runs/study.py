"""The folder of a study: lists of the folds, a run for each fold and seed, and what they give."""

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densenet121.runs.evaluations import table_bytes, write_table
from densenet121.runs.layout import PREDICTIONS, RECORD, checkpoints_in, make_folder, read_record
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import json_bytes, read_input, write_atomic, write_json, write_together
from densenet121.utils.json_values import parse_json

STUDY = "study.json"
PAGE = "study.html"
FIGURE = "study.png"
LABEL_ERRORS = "label_errors.csv"
LABEL_ERRORS_PAGE = "label_errors.html"
_HELD_OUT = "held_out.csv"  # in a run folder: the run is finished
_LOGIT = "logit_"
_COMMAND = "study"


@dataclass(frozen=True)
class HeldOut:
    """What a run gives for the images of its fold that it was not trained on.

    Attributes:
        logits: ``(n, K)``; of images that cannot be read, nan.
        errors: number of an image that cannot be read, and the reason.
    """

    logits: NDArray[np.float32]
    errors: dict[int, str]


@dataclass(frozen=True)
class StudyFolder:
    """The paths in the folder of a study."""

    path: Path

    def lists(self, fold: int) -> Path:
        """Folder with the lists of a fold."""
        return self.path / "folds" / f"fold_{fold}"

    def run(self, fold: int, seed: int) -> Path:
        """Run folder of a fold and seed."""
        return self.path / "runs" / f"fold_{fold}_seed_{seed}"

    def predictions(self, seed: int | None = None) -> Path:
        """The pooled predictions of one seed; None: of the mean over the seeds."""
        name = Path(PREDICTIONS)
        return self.path / (name if seed is None else f"{name.stem}_seed_{seed}{name.suffix}")

    def begin(self, *, resume: bool) -> dict[str, Any] | None:
        """Make the folder, or return the record of the study in it, which is to go on.

        A study of which no run has begun, because a setting was refused, does not count.

        Raises:
            UsageError: it has a study, and ``resume`` is False; or it has something else.
            InputError: it cannot be made.
        """
        before = read_record(self.path)
        is_study = before.get("command") == _COMMAND
        begun = is_study and any(self.path.glob("runs/*"))
        if begun and not resume:
            raise UsageError(
                f"`run_dir` {self.path} already has a study; pass `resume` auto to go on with it, "
                "or choose another folder"
            )
        if not is_study and self.path.is_dir() and any(self.path.glob("[!.]*")):
            raise UsageError(
                f"`run_dir` {self.path} is not empty and has no study; choose another folder"
            )
        if is_study and not begun:
            shutil.rmtree(self.path / "folds", ignore_errors=True)
        make_folder(self.path, self.path.parent)
        return before if begun else None

    def write_start(self, record: Mapping[str, Any], lists: Mapping[str, bytes]) -> None:
        """Write run.json and the lists of the folds."""
        write_json(self.path / RECORD, record)
        for name, content in lists.items():
            file = self.path / "folds" / name
            if not file.is_file() or file.read_bytes() != content:
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(file, content)

    def write_held_out(
        self, fold: int, seed: int, paths: Sequence[str], names: Sequence[str], found: HeldOut
    ) -> None:
        """Mark a run as finished, by what it gives for the images of its fold."""
        columns: dict[str, Sequence[object]] = {"path": paths}
        columns["error"] = [found.errors.get(number, "") for number in range(len(paths))]
        for name, logits in zip(names, found.logits.T.tolist(), strict=True):
            columns[_LOGIT + name] = [repr(value) for value in logits]
        write_table(self.run(fold, seed) / _HELD_OUT, columns)

    def read_held_out(self, fold: int, seed: int, paths: Sequence[str]) -> HeldOut | None:
        """What ``write_held_out`` wrote; None if the run is not finished.

        Raises:
            InputError: the file is damaged, or of other images.
        """
        file = self.run(fold, seed) / _HELD_OUT
        if not file.is_file():
            return None
        text = file.read_bytes().decode("utf-8", "surrogateescape")
        try:
            head, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
            if [row[0] for row in rows] != list(paths) or head[:2] != ["path", "error"]:
                raise ValueError("other images")
            logits = np.array([[float(cell) for cell in row[2:]] for row in rows])
            errors = {number: row[1] for number, row in enumerate(rows) if row[1]}
            return HeldOut(logits.astype(np.float32).reshape(len(rows), len(head) - 2), errors)
        except (csv.Error, ValueError, IndexError) as error:
            raise InputError(
                f"{file}: is damaged ({error}); remove its folder, and the run is trained again"
            ) from None

    def remove_checkpoints(self, fold: int, seed: int) -> None:
        """Remove the checkpoints of a finished run; its weights are kept."""
        for file in checkpoints_in(self.run(fold, seed)):
            file.unlink(missing_ok=True)

    def write_results(
        self,
        content: Mapping[str, Any],
        predictions: Mapping[int | None, Mapping[str, Sequence[object]]],
        label_errors: Mapping[str, Sequence[object]],
    ) -> None:
        """Write study.json, the pooled predictions and the labels in doubt, all or none.

        Args:
            content: content of study.json.
            predictions: seed, or None for the mean over the seeds, to the columns.
            label_errors: the columns of the labels in doubt.
        """
        files = {self.predictions(seed): table_bytes(part) for seed, part in predictions.items()}
        files[self.path / LABEL_ERRORS] = table_bytes(label_errors)
        write_together({**files, self.path / STUDY: json_bytes(content)})


def read_study(folder: Path) -> dict[str, Any]:
    """The content of study.json.

    Raises:
        InputError: it is missing or damaged.
    """
    file = folder / STUDY
    try:
        content = parse_json(read_input(file))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read ({error}); see densenet121 study") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: not the result of a study")
    return content
