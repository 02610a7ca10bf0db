"""The ``convert`` command."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densenet121.card import run_card, weights_card
from densenet121.checkpoint.convert import Converted, convert
from densenet121.checkpoint.hugging_face import write_hugging_face
from densenet121.checkpoint.known import Known
from densenet121.checkpoint.native import ModelInfo
from densenet121.commands import DONE
from densenet121.commands.card import command_of
from densenet121.config import ConvertConfig
from densenet121.runs.layout import read_record
from densenet121.runs.read import made_by_train
from densenet121.utils.errors import InputError, UsageError, visible_lines
from densenet121.utils.files import real_path


def run(config: ConvertConfig) -> int:
    """Convert weights and print the result."""
    source, target = Path(config.source), Path(config.target)
    done = _convert(config, source, target)
    lost = "; the calibration was dropped, because the format cannot store it" if done.lost else ""
    sums = "" if done.channels == 3 else ", for one channel"
    what = (
        f"{target}: {done.info.net}, variant {done.info.variant}{sums}, from {done.family}; all "
        f"{done.tensors} tensors are bit-identical after reading back{lost}"
    )
    notes = [f"note: {note}" for note in done.notes]
    print(visible_lines([what, *notes]))  # noqa: T201 (the command's output)
    return DONE


def _convert(config: ConvertConfig, source: Path, target: Path) -> Converted:
    choices: dict[str, Any] = {
        "net": config.net,
        "variant": config.variant,
        "known": Known(
            class_names=None if config.class_names is None else Path(config.class_names),
            task=config.task,
            image_size=config.size,
            eval_resize=config.resize,
            interpolation=config.interpolation,
            mean_std=config.mean_std,
            depth=config.depth,
            window=config.window,
        ),
    }
    if config.to != "huggingface":
        return convert(
            source,
            target,
            config.to,
            channels=config.channels,
            positive_class=config.positive_class,
            **choices,
        )
    if config.positive_class is not None:
        raise UsageError("`positive_class` cannot be written with `to` huggingface; omit it")
    if config.channels == 1:
        raise UsageError("`channels` 1 cannot be written with `to` huggingface; omit it")
    if (given := choices["known"].given) and made_by_train(source):
        raise UsageError(
            f"{source}: README.md would be the card of its run, which `{given[0]}` contradicts; "
            "convert it to native with these settings first, and then that file"
        )

    def page(info: ModelInfo, family: str, notes: Sequence[str]) -> str:
        title, folder = real_path(target).name, real_path(source).parent
        if made_by_train(source):
            command = command_of(read_record(folder))
            try:
                return run_card(
                    folder, weights=source, title=title, command=command, differences=notes
                )
            except InputError as error:
                raise InputError(
                    f"{error}; README.md is the card of this run: repair it, or convert a copy of "
                    "the weights in another folder"
                ) from None
        origin = "" if family == "native" else f"The weights come from {family}."
        return weights_card(info, title, origin, notes)

    return write_hugging_face(source, target, page, **choices)
