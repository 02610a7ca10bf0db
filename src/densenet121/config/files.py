"""YAML files of settings, which ``--config`` reads and ``--print_config`` prints.

A value is parsed from its text in the file, exactly as on the command line, so that ``lr: 1e-4`` is
a number (PyYAML itself would return text) and ``data_dir: 007`` a path. ``null`` means the default.
PyYAML is imported only when a file is read or printed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from densenet121.config.flags import Flag, flags_of, nearest
from densenet121.utils.errors import UsageError
from densenet121.utils.files import read_input

if TYPE_CHECKING:
    from yaml.nodes import Node

Settings = TypeVar("Settings")

_LONGEST, _MOST_ELEMENTS = 2**22, 40_000
_TAG = "tag:yaml.org,2002:"
_NULL = f"{_TAG}null"
_SCALARS = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "timestamp")}


def read_settings(file: str, config_class: type[Any]) -> dict[str, Any]:
    """The values that a YAML file gives to settings; REQUIRED for a null that has no default.

    Settings of another command whose files this one also reads are checked and left out.

    Raises:
        UsageError: the file cannot be read, is not a mapping, or a key or value is not allowed.
    """
    own, also = flags_of(config_class), config_class.also_reads
    flags = {flag.name: flag for flag in (*(flags_of(also) if also else ()), *own)}
    text = _text(file)
    settings: dict[str, Any] = {}
    for key, node in _pairs(file, text):
        where = f"--config {file}, line {key.start_mark.line + 1}:"
        name = key.value if isinstance(key.value, str) else _source(key, text)
        if name not in flags:
            raise UsageError(f"{where} unknown key {name}{nearest(name, flags)}")
        if name in settings:
            raise UsageError(f"{where} {name} is given twice")
        settings[name] = _value(node, flags[name], f"{where} {name}", text)
    names = {flag.name for flag in own}
    return {name: value for name, value in settings.items() if name in names}


def read_recipe(name: str, config_class: type[Any]) -> dict[str, Any]:
    """The values of a recipe that comes with the package.

    Raises:
        UsageError: the command has no recipe of this name.
    """
    if name not in config_class.recipes:
        raise UsageError(f"--recipe must be one of {', '.join(config_class.recipes)}, got {name}")
    file = Path(__file__).parent / "recipes" / f"{name}.yaml"
    return read_settings(str(file), config_class)


def over_recipe(
    given: Mapping[str, Any], recipe: Mapping[str, Any], config_class: type[Any]
) -> dict[str, Any]:
    """The given values and, where there are none, those of a recipe.

    A preset that is given also replaces the recipe's values of the settings that it stands for.
    """
    replaced = {
        name for preset, names in config_class.presets.items() if preset in given for name in names
    }
    return {name: v for name, v in recipe.items() if name not in replaced} | dict(given)


def build(
    config_class: type[Settings], values: Mapping[str, Any], sources: Mapping[str, str]
) -> Settings:
    """The settings; an error says which of the values that it names are of a recipe or a file.

    Args:
        config_class: the settings of a command.
        values: those that are not the defaults.
        sources: the recipe or file of each setting that was not given by a flag, as it was passed.

    Raises:
        UsageError: a value is not allowed, or two of them contradict each other.
    """
    try:
        return config_class(**values)
    except UsageError as error:
        own = {name: s for name, s in sources.items() if values.get(name) is not None}
        if not (said := sources_named(str(error), own)):
            raise
        raise UsageError(f"{error}{said}") from None


def sources_named(error: str, sources: Mapping[str, str]) -> str:
    """What an error lacks about the settings whose flags it names: the recipe or file they are of.

    Args:
        error: the line.
        sources: the recipe or file of each setting that was not given by a flag.
    """
    by_source: dict[str, list[str]] = {}
    for name in dict.fromkeys(re.findall(r"--(\w+)", error)):
        if name in sources:
            by_source.setdefault(sources[name], []).append(f"--{name}")
    return "".join(f"; {s} sets {' and '.join(names)}" for s, names in by_source.items())


def as_yaml(settings: Mapping[str, Any]) -> str:
    """YAML text from which ``read_settings`` reads the same values."""
    import yaml

    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=2**31)


def _text(file: str) -> str:
    try:
        return read_input(Path(file)).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"--config {file}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UsageError(f"--config {file}: not a UTF-8 text file") from None
    except ValueError:  # a NUL character in the name
        raise UsageError(f"--config {file!r}: not a valid file name") from None


def _pairs(file: str, text: str) -> "list[tuple[Node, Node]]":
    """The keys and values of the mapping in the file, as YAML nodes."""
    import yaml

    # The reader takes 0.1 ms for each element and line.
    if text.count(",") + text.count("\n") > _MOST_ELEMENTS or len(text) > _LONGEST:
        raise UsageError(
            f"--config {file}: is too long for settings; at most {_LONGEST} characters and "
            f"{_MOST_ELEMENTS} elements and lines are read"
        )
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.context_mark or error.problem_mark  # where the faulty part begins
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        hint = "; a tab stands where only blanks may" if "'\\t'" in (error.problem or "") else ""
        raise UsageError(f"--config {file}: not valid YAML{place}{hint}") from None
    except (yaml.YAMLError, RecursionError):  # a control character; too deeply nested brackets
        raise UsageError(f"--config {file}: not valid YAML") from None
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(f"--config {file}: must have lines of NAME: VALUE, such as lr: 0.1")
    return list(root.value)


def _value(node: "Node", flag: Flag, label: str, text: str) -> Any:
    if node.tag == _NULL:
        return None if flag.optional else flag.default
    if flag.many:
        elements = node.value if isinstance(node.value, list) else [node]
        return [_scalar(element, flag, label, text) for element in elements]
    return _scalar(node, flag, label, text)


def _source(node: "Node", text: str) -> str:
    return " ".join(text[node.start_mark.index : node.end_mark.index].split())


def _scalar(node: "Node", flag: Flag, label: str, text: str) -> Any:
    if node.tag in _SCALARS:
        return flag.value(node.value, label)
    found = _source(node, text) or "null"
    hint = f"; write {found[1:-1].replace(' ', '')}" if found[0] == "[" else ""
    raise UsageError(f"{label} must be {flag.expected}, got {found}{hint}")
