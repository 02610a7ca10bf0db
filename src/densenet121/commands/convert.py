"""The ``convert`` command."""

from pathlib import Path

from densenet121.checkpoint.convert import convert
from densenet121.commands import DONE
from densenet121.config import ConvertConfig


def run(config: ConvertConfig) -> int:
    """Convert weights and print what was written."""
    source, target = Path(config.source), Path(config.target)
    done = convert(source, target, config.to, net=config.net, variant=config.variant)
    lost = "; its calibration stays behind, such files hold none" if done.lost else ""
    print(  # noqa: T201 (the command's output)
        f"{target}: {done.info.net}, variant {done.info.variant}, from {done.family}; read "
        f"again, all {done.tensors} tensors are the same to the bit{lost}"
    )
    return DONE
