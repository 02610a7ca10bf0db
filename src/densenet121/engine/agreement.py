"""Refuse ranks that were not given the same: settings, weights, images.

Each would go on with its own, and the result would be that of none of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from densenet121.config import EvalConfig, TrainConfig, settings_of
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.distributed.ranks import gather, is_distributed, raise_together
from densenet121.engine.balance import weights_setting
from densenet121.engine.distillation import teacher_setting
from densenet121.runtime import Runtime
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.files import file_digest

T = TypeVar("T")

# Settings that may differ: places on a machine, whose content is compared, and what rank 0 decides
# or each rank does by itself.
_OWN = frozenset(
    {
        *("data_dir", "val_dir", "image_dir", "exclude", "pretrained", "resume"),
        *("output_dir", "ckpt_path", "log_path", "log_to", "keep_checkpoint_max"),
        *("is_save_on_master", "device", "workers", "rank", "group_size", "timeout_seconds"),
    }
)


def check_same_settings(config: TrainConfig | EvalConfig, runtime: Runtime) -> None:
    """Refuse ranks whose settings differ, given or by the default of their machine.

    Raises:
        UsageError: the text names the first rank that differs from rank 0, and how.
    """
    if not is_distributed():
        return
    own = settings_of(config) | runtime.settings()
    if isinstance(config, TrainConfig):  # of files their digests
        own |= {"teacher": teacher_setting(config), "class_weights": weights_setting(config)}
    seen = gather({name: value for name, value in own.items() if name not in _OWN})
    for rank, found in enumerate(seen):
        other = [
            f"`{name}` is {found.get(name)} instead of {value}"
            for name, value in seen[0].items()
            if found.get(name) != value
        ]
        if other:
            raise UsageError(
                f"rank {rank} has other settings than rank 0: {', '.join(other)}; start all ranks "
                "with the same ones, also where a default depends on the machine"
            )


def check_same_weights(files: Sequence[Path]) -> None:
    """Refuse ranks whose weights files differ in content, number or order.

    Raises:
        InputError: the text names the first rank that differs from rank 0, and the files.
    """
    if not is_distributed():
        return
    seen = gather([(str(file), _digest(file)) for file in files])
    for rank, found in enumerate(seen):
        if [digest for _, digest in found] == [digest for _, digest in seen[0]]:
            continue
        count = f"{len(found)} files, rank 0 {len(seen[0])}"
        pairs = (pair for pair in zip(found, seen[0], strict=False) if pair[0][1] != pair[1][1])
        which = next((f"{one[0]} there, {first[0]} on rank 0" for one, first in pairs), count)
        raise InputError(
            f"the weights of rank {rank} differ from those of rank 0 ({which}): every host needs "
            "the same files"
        )


def check_same_data(sides: Mapping[str, ImageDataset | None]) -> None:
    """Refuse ranks with different images, for example if a folder differs between hosts.

    Args:
        sides: the images that are used, by "train" and "val".

    Raises:
        InputError: the text names the first rank that differs from rank 0.
    """
    if not is_distributed():
        return
    seen = gather({s: None if d is None else (len(d), d.fingerprint) for s, d in sides.items()})
    for rank, data in enumerate(seen):
        for side, found in data.items():
            if found != seen[0][side]:
                counts = [one[0] if one else 0 for one in (found, seen[0][side])]
                raise InputError(
                    f"the {side} data of rank {rank} ({counts[0]} images) differs from that of "
                    f"rank 0 ({counts[1]} images): every host needs the same files and names"
                )


@contextmanager
def entered_by_all(context: AbstractContextManager[T]) -> Iterator[T]:
    """The context, in which either all ranks are or none: none writes where another may not.

    Raises:
        InputError: a rank cannot enter it.
    """
    fault: InputError | None = None
    with ExitStack() as stack:
        try:
            value = stack.enter_context(context)
        except InputError as error:
            fault = error
        raise_together(fault)
        yield value


def _digest(file: Path) -> str | None:
    try:
        return file_digest(file)
    except OSError:  # reading it says so
        return None
