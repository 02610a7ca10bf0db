"""The flags of a settings class: type, default and help text of each field.

The command line, the YAML files and the tables of the documentation are generated from them.
"""

import dataclasses
import difflib
import inspect
import math
import os
import re
import sys
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from densenet121.utils.checks import number_in, whole_number_in
from densenet121.utils.errors import UsageError

REQUIRED = dataclasses.MISSING
_SWITCH = {"true": True, "yes": True, "on": True, "1": True}
_SWITCH |= {"false": False, "no": False, "off": False, "0": False}
_PLACEHOLDERS = {int: "N", float: "X", str: "TEXT"}


_found: dict[type[Any], tuple["Flag", ...]] = {}


@dataclasses.dataclass(frozen=True)
class Flag:
    """One field of a settings class.

    Attributes:
        name: name of the field.
        kinds: types that its value may have, without None.
        choices: the allowed values; empty if only the type restricts them.
        optional: whether None is allowed.
        many: whether the value is a list.
        placeholder: placeholder for the value in the help.
        default: value without the flag, or REQUIRED.
        positional: whether it is a positional argument, not ``--name``.
        section: its heading in the help.
        meaning: its help text, without the default.
        default_text: the default as shown in the help.
    """

    name: str
    kinds: frozenset[type]
    choices: tuple[Any, ...]
    optional: bool
    many: bool
    placeholder: str
    default: Any
    positional: bool
    section: str
    meaning: str
    default_text: str

    @property
    def label(self) -> str:
        """The flag as typed by a user."""
        return _label(self.name, self.positional)

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.positional or self.default is REQUIRED

    @property
    def switch(self) -> bool:
        """Whether the flag takes no value."""
        return self.kinds == {bool}

    @property
    def expected(self) -> str:
        """What a value must be, for error messages."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        if self.switch:
            return "true or false"
        if str in self.kinds:
            return "text"
        return "a whole number" if int in self.kinds else "a number"

    def value(self, text: str, label: str) -> Any:
        """Parse ``text`` to the value, or to one element of it if the value is a list.

        Raises:
            UsageError: the text is wrong; the message has ``label``, what is expected and the text.
        """
        found = self._parsed(text)
        if found is None or (self.choices and found not in self.choices):
            raise UsageError(f"{label} must be {self.expected}, got {text}")
        return found

    def plain(self, value: Any) -> Any:
        """A value that Python code gives, as the command line would: plain, for JSON and resuming.

        A number of numpy becomes Python's, a path text, 3.0 the whole number 3, and several numbers
        of one setting, such as the image size (224, 320), the text "224,320". One number where
        text is expected becomes text, too.

        Raises:
            UsageError: the value is of another type, or None where the setting always has one.
        """
        if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 1:
            value = value.tolist()
        if self.many and value is not None:
            return [self._plain(e) for e in (value if isinstance(value, list | tuple) else [value])]
        if str in self.kinds and isinstance(value, list | tuple):
            numbers = [_of_numpy(element) for element in value]
            if numbers and all(type(number) in (int, float) for number in numbers):
                return ",".join(map(str, numbers))
        return None if value is None and self.optional else self._plain(value)

    def _plain(self, value: Any) -> Any:
        value = _of_numpy(value)
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if self.switch and isinstance(value, int) and value in (0, 1):
            value = bool(value)
        if self.choices == (0, 1) and isinstance(value, bool):
            value = int(value)
        if isinstance(value, float) and value.is_integer() and {int} <= self.kinds <= {int, str}:
            value = int(value)
        if self.kinds == {str} and not self.choices and type(value) in (int, float):
            value = str(value)
        kinds = (int, float) if float in self.kinds else tuple(self.kinds)
        fits = isinstance(value, kinds) and (self.switch or not isinstance(value, bool))
        if not fits and not (self.choices and type(value) in (str, int, float)):
            raise UsageError(f"{self.label} must be {self.expected}, got {value!r}")
        if isinstance(value, str) and not _can_be_written(value):
            raise UsageError(
                f"{self.label} has a NUL character or half of a character, which no name of a file "
                f"has; remove it, got {value!r}"
            )
        return value

    def _parsed(self, text: str) -> Any:
        if self.switch:
            return _SWITCH.get(text.lower())
        if self.choices == (0, 1):
            return _whole(text) if text.lower() not in ("true", "false") else int(text[0] in "tT")
        if int in self.kinds:
            whole = _whole(text)
            if whole is not None or str not in self.kinds:
                return whole
        return _number(text) if float in self.kinds else text


def _label(name: str, positional: bool) -> str:
    return name.upper() if positional else f"--{name}"


def labels_of(config_class: type[Any]) -> dict[str, str]:
    """Field to its flag as typed by a user, without ``flags_of``, which needs more memory."""
    names = [field.name for field in dataclasses.fields(config_class)]
    return {name: _label(name, name in config_class.positional) for name in names}


def _of_numpy(value: Any) -> Any:
    """A number of numpy as Python's; anything else as it is."""
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


# What other programs call our settings, where the most similar name would be another setting.
_ELSEWHERE = {
    "max_epoch": "epoch epochs max_epochs n_epochs num_epochs num_train_epochs",
    "per_batch_size": "b batch batch_size batchsize bs",
    "workers": "j num_workers n_workers",
    "lr": "learning_rate lr0 base_lr",
    "net": "arch architecture backbone model model_name network",
    "pretrained": "checkpoint init_weights load load_from model_path weights weights_file",
    "weight_decay": "wd",
    "data_dir": "dataset data_path images root train train_dir train_data",
    "val_dir": "test_dir valid_dir validation_dir",
    "output_dir": "logdir out_dir results_dir run_dir save save_dir save_path",
    "output": "out_dir save save_dir save_path",
    "device": "cuda gpu gpus",
    "image_size": "crop_size img_size imgsz input_size resolution size",
    "lr_scheduler": "sched schedule scheduler",
    "lr_epochs": "milestones",
    "lr_gamma": "gamma",
    "label_smooth": "label_smoothing smoothing",
    "num_classes": "classes n_classes nb_classes",
    "optimizer": "opt optim",
    "patience": "early_stop early_stopping",
    "flip_prob": "flip hflip",
    "class_weights": "class_weight",
}


# python -OO drops docstrings; the settings hold without their texts.
NO_TEXTS = sys.flags.optimize > 1


def nearest(word: str, known: Iterable[str]) -> str:
    """The hint "; did you mean ...?" with the known name that is nearest to ``word``, or "".

    Dashes are ignored; a name that begins with the word is preferred, then the one that other
    programs call so, then the most similar.
    """
    whole = {name.strip("-"): name for name in known}
    word = word.strip("-")
    spelled = word.lower().replace("-", "_")
    near = sorted(name for name in whole if word and name.startswith(word))
    near += [name for name, others in _ELSEWHERE.items() if spelled in others.split()]
    near = [name for name in near if name in whole] or difflib.get_close_matches(word, whole, n=1)
    return f"; did you mean {whole[near[0]]}?" if near else ""


def flags_of(config_class: type[Any]) -> tuple[Flag, ...]:
    """The flags of a settings class: positional ones first, then by group."""
    if config_class not in _found:
        _found[config_class] = _flags_of(config_class)
    return _found[config_class]


def _flags_of(config_class: type[Any]) -> tuple[Flag, ...]:
    hints = get_type_hints(config_class, include_extras=True)
    defaults = {field.name: field.default for field in dataclasses.fields(config_class)}
    meanings: dict[str, str] = {}
    homes: dict[str, Any] = {}
    for group in config_class.__mro__:
        meanings = explanations(group) | meanings
        for name in inspect.get_annotations(group):
            homes.setdefault(name, group)
    names = [name for name in homes if name in defaults]
    if NO_TEXTS:
        meanings = dict.fromkeys(names, "")
    names.sort(key=lambda name: name not in config_class.positional)
    return tuple(
        _flag(name, hints[name], defaults[name], homes[name], config_class, meanings[name])
        for name in names
    )


def explanations(config_class: type[Any]) -> dict[str, str]:
    """Field to its text in the ``Attributes`` section of the class's own docstring.

    From Python 3.13 on the compiler removes the indentation of a docstring; cleandoc does so for
    every version.
    """
    text = inspect.cleandoc(config_class.__doc__ or "")
    _, _, section = text.partition("\nAttributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in entries}


def _flag(
    name: str, hint: Any, default: Any, home: Any, config_class: Any, explanation: str
) -> Flag:
    parts = list(_parts(hint))
    choices = tuple(c for part in parts if get_origin(part) is Literal for c in get_args(part))
    kinds = {type(choice) for choice in choices}
    kinds |= {part for part in parts if isinstance(part, type) and part is not NoneType}
    given = [part for part in parts if isinstance(part, str)]
    if choices:
        given = ["|".join(map(str, choices))]
    elif not given:
        given = [text for kind, text in _PLACEHOLDERS.items() if kind in kinds]
    stated = re.search(r" ?\(default: (.*)\)$", explanation)
    return Flag(
        name=name,
        kinds=frozenset(kinds),
        choices=choices,
        optional=NoneType in parts,
        many=any(get_origin(part) is list for part in _unions(hint)),
        placeholder=given[0] if given else "",
        default=default,
        positional=name in config_class.positional,
        section=home.__dict__.get("section", "settings"),
        meaning=explanation[: stated.start()] if stated else explanation,
        default_text=stated[1] if stated else _shown(default),
    )


def _unions(hint: Any) -> list[Any]:
    return list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]


def _parts(hint: Any) -> list[Any]:
    """The simple types, Literals and placeholders (text of Annotated) in a type."""
    found: list[Any] = []
    for part in _unions(hint):
        origin = get_origin(part)
        if origin is Annotated:
            found += [*_parts(get_args(part)[0]), *get_args(part)[1:]]
        elif origin is list:
            found += _parts(get_args(part)[0])
        elif part is not hint:
            found += _parts(part)
        else:
            found.append(part)
    return found


def _shown(default: Any) -> str:
    if default is REQUIRED:
        return "required"
    if default is None or default is False:
        return "none" if default is None else "off"
    return str(default)


def _can_be_written(text: str) -> bool:
    """Whether text can be a name; a file of settings and Python have escapes for what cannot."""
    try:
        return b"\0" not in text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False


def _whole(text: str) -> int | None:
    try:
        return whole_number_in(text, 16 if text.lower().startswith("0x") else 10)
    except ValueError:
        return None


def _number(text: str) -> float | None:
    whole = _whole(text)
    try:
        number = number_in(text) if whole is None else float(whole)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
