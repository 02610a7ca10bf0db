"""The ``card`` command, and the command line that made a run."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densenet121.card import run_card
from densenet121.commands import DONE
from densenet121.config import (
    AMP_NAMES,
    CardConfig,
    EvalConfig,
    TrainConfig,
    absolute,
    effective,
    flags_of,
)
from densenet121.runs.layout import read_record
from densenet121.utils.files import check_output, write_atomic

_DEFAULT = "README.md"
# A card is passed on, so the paths of this machine are not in it.
_PLACES = {"data_dir": "DATA", "val_dir": "VALIDATION_DATA", "image_dir": "IMAGES"}
_PLACES |= {"exclude": "EXCLUDED"}
_LEFT_OUT = (
    *("output_dir", "ckpt_path", "resume", "log_path", "log_interval", "ckpt_interval"),
    *("keep_checkpoint_max", "is_save_on_master", "device", "workers", "timeout_seconds"),
    *("rank", "group_size", "is_distributed", "num_classes"),
)
_ARITHMETIC = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"} | AMP_NAMES


def run(config: CardConfig) -> int:
    """Write the card and print its path."""
    folder = absolute(config.run)
    output = absolute(config.output) if config.output else folder / _DEFAULT
    evaluation = absolute(config.evaluation) if config.evaluation else None
    if folder.is_dir():  # what else it may be, the card says
        folders = [folder, evaluation] if evaluation and evaluation.is_dir() else [folder]
        read = [file for each in folders for file in each.iterdir() if file.suffix != ".md"]
        check_output(output, "output", read)
    page = run_card(folder, evaluation=evaluation, command=command_of(read_record(folder)))
    write_atomic(output, page.encode())
    print(output)  # noqa: T201 (the command's output)
    return DONE


def command_of(record: Mapping[str, Any]) -> str:
    """The command with the settings of run.json, as far as they are not the defaults."""
    settings, name = record.get("settings"), record.get("command")
    if not isinstance(settings, dict) or name not in ("train", "eval"):
        return ""
    words = ["densenet121", name]
    flags = flags_of(TrainConfig if name == "train" else EvalConfig)
    # What the chosen preset of augmentation stands for is not named again.
    defaults = effective({f.name: f.default for f in flags} | {"augment": settings.get("augment")})
    for flag in flags:
        value, default = settings.get(flag.name), defaults[flag.name]
        usual = value == (flag.default if flag.name == "augment" else default)
        # eval recorded it as its default once; the weights say what network they are of.
        usual = usual or (flag.name == "net" and value == "densenet121")
        # Recorded with every schedule, but most refuse it.
        usual = usual or (flag.name == "T_max" and value == settings.get("max_epoch"))
        # int8 is what the weights compute in, which nobody asks for.
        usual = usual or (flag.name == "amp" and value == "int8")
        if value is None or usual or flag.name in _LEFT_OUT:
            continue
        if flag.name == "amp":
            value = _ARITHMETIC.get(value, value)
        elif flag.name in _PLACES:
            value = _PLACES[flag.name]
        elif flag.placeholder in ("PATH", "FILE", "FOLDER"):
            value = Path(str(value)).name
        elif isinstance(value, str) and value.startswith("file "):
            value = "FILE"  # recorded by its digest
        found = value if isinstance(value, list) else [value]
        words += [flag.label, *map(str, found)]
    return shlex.join(words)
