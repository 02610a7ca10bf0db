"""What a person knows of weights that their file does not record, or records wrongly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from densenet121.checkpoint.native import DEFAULT_TASK, ModelInfo, check_one_output, named_twice
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.sources.text import names_of
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.resizing import default_eval_resize

Triple = tuple[float, float, float]
_TASKS = (DEFAULT_TASK, "multilabel")  # those that need no code of the user's


@dataclass(frozen=True)
class Known:
    """In place of what a weights file records or is assumed to mean; None keeps that.

    Attributes:
        class_names: file of the names, one a line, in the order of the network's outputs.
        task: what the outputs mean, single_label (softmax) or multilabel (sigmoids).
        image_size: height and width of the network's input, in pixels.
        eval_resize: size before the central crop, in the form of the setting ``eval_resize``;
            None with an ``image_size`` is in proportion to that.
        interpolation: how images are resized, a name of ``EvalTransform``.
        mean_std: mean and std of R, G and B in grey levels, averaged for one channel.
        depth: bits that are used of 16-bit grey samples, 8 or 16.
        window: values that become black and white, in the form of the setting ``window``.
    """

    class_names: Path | None = None
    task: str | None = None
    image_size: tuple[int, int] | None = None
    eval_resize: str | None = None
    interpolation: str | None = None
    mean_std: tuple[Triple, Triple] | None = None
    depth: int | None = None
    window: str | None = None

    @property
    def given(self) -> list[str]:
        """Names of what is given, as settings."""
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return ["normalisation" if name == "mean_std" else name for name in names]


NOTHING_KNOWN = Known()


def with_known(
    info: ModelInfo, known: Known, outputs: int, channels: int, source: Path
) -> tuple[ModelInfo, list[str]]:
    """The description with what is known in it, and a sentence for each change.

    Args:
        info: what the file records, or what is assumed of it.
        known: what replaces it.
        outputs: outputs of the network.
        channels: input channels of the network.
        source: the weights file, for messages.

    Raises:
        InputError: the names do not fit to the outputs, or the sizes not to each other.
        UsageError: the task of the weights is another that was trained.
    """
    if not known.given:
        return info, []
    names, task = info.class_names, known.task or info.task
    if known.class_names is not None:
        names = _read_names(known.class_names, outputs)
    if known.task is not None and info.task not in _TASKS:
        raise UsageError(f"{source}: is of the task {info.task}, not {known.task}; omit `task`")
    check_one_output(task, outputs, source)
    preprocessing = _preprocessing(info.preprocessing, known, channels)
    _ = preprocessing.transform  # refuses a crop that does not fit, and unknown names
    new = replace(info, class_names=names, task=task, preprocessing=preprocessing)
    return new, list(_changes(info, new))


def _read_names(file: Path, outputs: int) -> tuple[str, ...]:
    names = names_of(file)
    if len(names) != outputs:
        raise InputError(
            f"{file}: has {len(names)} names, but the network has {outputs} outputs; name one "
            "class on each line, in the order of the outputs"
        )
    if twice := named_twice(names):
        raise InputError(f"{file}: {twice} classes; give each another name")
    return tuple(names)


def _preprocessing(own: Preprocessing, known: Known, channels: int) -> Preprocessing:
    resize = known.eval_resize
    if resize is None and known.image_size is not None:
        resize = default_eval_resize(known.image_size)
    new = own.changed(
        image_size=known.image_size,
        eval_resize=resize,
        interpolation=known.interpolation,
        depth=known.depth,
        window=known.window,
    )
    if known.mean_std is None:
        return new
    mean, std = known.mean_std
    # A fill that differs from the mean belongs to the other mean.
    return replace(new, mean=mean, std=std, fill=None).with_channels(channels)


def _changes(old: ModelInfo, new: ModelInfo) -> Iterator[str]:
    """What differs, in words; names where there were none contradict nothing."""
    if old.class_names and old.class_names != new.class_names:
        yield "the classes have other names than the weights record"
    if old.task != new.task:
        yield f"the outputs are those of the task {new.task}, in place of {old.task}"
    before, after = old.preprocessing, new.preprocessing
    for name in ("image_size", "eval_resize", "interpolation", "mean", "std", "depth", "window"):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            yield f"{name} is {_text(now)}, in place of {_text(was)}"


def _text(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(f"{part:g}" for part in value)
    return "full" if value is None else str(value)
