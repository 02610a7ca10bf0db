"""The ``convert`` command."""

from pathlib import Path

from densenet121.checkpoint.convert import convert
from densenet121.commands import DONE
from densenet121.config import ConvertConfig


def run(config: ConvertConfig) -> int:
    """Convert weights and print the result."""
    source, target = Path(config.source), Path(config.target)
    done = convert(
        source,
        target,
        config.to,
        net=config.net,
        variant=config.variant,
        channels=config.channels,
    )
    lost = "; the calibration was dropped, because the format cannot store it" if done.lost else ""
    sums = "" if done.channels == 3 else " (of the first convolution the sum over R, G and B)"
    notes = "".join(f"\nnote: {note}" for note in done.notes)
    print(  # noqa: T201 (the command's output)
        f"{target}: {done.info.net}, variant {done.info.variant}, from {done.family}; all "
        f"{done.tensors} tensors are bit-identical after reading back{sums}{lost}{notes}"
    )
    return DONE
