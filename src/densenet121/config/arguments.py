"""Parse the arguments of a command into its settings.

argparse only splits the arguments; values, rules and error messages are defined here.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from densenet121.config.files import as_yaml, build, over_recipe, read_recipe, read_settings
from densenet121.config.flags import REQUIRED, Flag, flags_of, nearest
from densenet121.config.help import help_text
from densenet121.utils.errors import UsageError

_COMMON = ("--config", "--print_config", "--help")
_ELSEWHERE_FLAGS = ("data_dir", "pretrained")  # of other commands, for what some take by its place
_NULL = ("null", "~")
_LEFT_OUT = {"skip_default", "skip_null", "skip_unset"}  # the last two are equivalent


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are UsageError."""

    def error(self, message: str) -> NoReturn:
        """Refuse the arguments."""
        raise UsageError(message)


def parse_settings(command: str, config_class: type[Any], arguments: Sequence[str]) -> Any:
    """``settings_and_sources`` without the sources."""
    return settings_and_sources(command, config_class, arguments)[0]


def settings_and_sources(
    command: str, config_class: type[Any], arguments: Sequence[str]
) -> tuple[Any, dict[str, str]]:
    """The settings from the arguments of one command, and whose those are that no flag gave.

    Flags override the files of --config in any order, which override a --recipe; a later file
    overrides an earlier one.

    Returns:
        The settings; and the recipe or file, as it was passed, of each of them that has one.

    Raises:
        UsageError: the arguments are wrong; the text is one line.
        SystemExit: 0, after --help and --print_config.
    """
    flags = {flag.name: flag for flag in flags_of(config_class)}
    end = arguments.index("--") if "--" in arguments else len(arguments)
    _refuse_unknown(arguments[:end], flags, config_class)
    given, words = _split(arguments[:end], flags, config_class)
    if "help" in given:
        print(help_text(command, config_class), end="")  # noqa: T201 (the requested output)
        raise SystemExit(0)
    files, printing = given.pop("config", []), given.pop("print_config", None)
    values: dict[str, Any] = {}
    chosen = given.pop("recipe", None)
    recipe = {} if chosen is None else read_recipe(chosen, config_class)
    sources = dict.fromkeys(recipe, f"--recipe {chosen}")
    for file in files:
        read = read_settings(file, config_class)
        values |= read
        sources |= dict.fromkeys(read, f"--config {file}")
    passed = {name: _value(flags[name], text) for name, text in given.items()}
    passed |= _by_place([*words, *arguments[end + 1 :]], flags, {*values, *passed})
    values |= passed
    sources = {name: source for name, source in sources.items() if name not in passed}
    values = over_recipe(values, recipe, config_class)
    values = {name: value for name, value in values.items() if value is not REQUIRED}
    missing = [flag.label for flag in flags.values() if flag.required and flag.name not in values]
    config = None if missing else build(config_class, values, sources)
    if printing is not None:
        print(_printed(values, flags, printing), end="")  # noqa: T201 (the requested output)
        raise SystemExit(0)
    if missing:
        raise UsageError(f"{', '.join(missing)} must be given")
    return config, {name: s for name, s in sources.items() if values.get(name) is not None}


def _refuse_unknown(
    arguments: Sequence[str], flags: Mapping[str, Flag], config_class: type[Any]
) -> None:
    known = [flag.label for flag in flags.values() if not flag.positional]
    known += [*_COMMON, *(["--recipe"] if config_class.recipes else [])]
    for argument in arguments:
        name = argument.partition("=")[0]
        # An argument with a space is a value, as in argparse: no flag has a space.
        if name[:1] != "-" or " " in name or _is_number(name):
            continue
        if name not in ("-", "-h", *known):
            placed = [flag for flag in flags.values() if flag.positional and not flag.choices]
            by_place = [flag.name for flag in placed]
            other = _ELSEWHERE_FLAGS if "target" not in by_place else (*_ELSEWHERE_FLAGS, "output")
            if placed and name.lstrip("-") in (*other, *by_place):
                words = " ".join(flag.label for flag in placed)
                raise UsageError(f"unknown flag {name}; pass {words} without a flag")
            raise UsageError(f"unknown flag {name}{nearest(name, known)}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _split(
    arguments: Sequence[str], flags: Mapping[str, Flag], config_class: type[Any]
) -> tuple[dict[str, Any], list[str]]:
    """The value of each given flag, as text; and the arguments that are not flags."""
    # No abbreviations: a flag of a later version could make one ambiguous.
    parser = Parser(
        allow_abbrev=False,
        exit_on_error=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--config", action="append")
    if config_class.recipes:
        parser.add_argument("--recipe")
    for flag in flags.values():
        if flag.switch:
            parser.add_argument(flag.label, action="store_const", const="true")
        elif not flag.positional:
            parser.add_argument(flag.label)
    printing = [a for a in arguments if a.partition("=")[0] == "--print_config"]
    try:
        found, words = parser.parse_known_args([a for a in arguments if a not in printing])
    except argparse.ArgumentError as error:
        raise UsageError(
            _wrong_value(str(error.argument_name), flags, config_class.recipes)
        ) from None
    given = {name: _dashes(value) for name, value in vars(found).items()}
    if "" in given.get("config", []):
        raise UsageError(_wrong_value("--config", flags, ()))
    if printing:
        given["print_config"] = printing[-1].partition("=")[2]
    return given, words


def _dashes(value: Any) -> Any:
    """The value that argparse read; of ``--flag=--`` it makes an empty list."""
    if value == []:
        return "--"
    return [_dashes(element) for element in value] if isinstance(value, list) else value


def _wrong_value(name: str, flags: Mapping[str, Flag], recipes: Sequence[str]) -> str:
    """The error if argparse rejects the value of a flag: it is missing, or it is superfluous."""
    if name == "--config":
        return "--config must name a YAML file of settings, got none"
    if name == "--recipe":
        return f"--recipe must be one of {', '.join(recipes)}, got none"
    flag = flags.get(name.removeprefix("--"))
    if flag is None or flag.switch:
        return f"{name.rpartition('/')[2]} takes no value"
    return f"{name} needs a value: {name} {flag.placeholder}"


def _value(flag: Flag, text: str) -> Any:
    return None if flag.optional and text in _NULL else flag.value(text, flag.label)


def _by_place(words: Sequence[str], flags: Mapping[str, Flag], given: set[str]) -> dict[str, Any]:
    """The values of the given positional arguments; ``given`` are the settings from elsewhere."""
    values: dict[str, Any] = {}
    for flag in flags.values():
        if flag.positional and words:
            taken = len(words) if flag.many else 1
            texts = [flag.value(word, flag.label) for word in words[:taken]]
            values[flag.name] = texts if flag.many else texts[0]
            words = words[taken:]
    if words:
        missing = [
            flag.label
            for flag in flags.values()
            if flag.required and not flag.positional and flag.name not in given
        ]
        hint = f"; {', '.join(missing)} must be given" if missing else ""
        raise UsageError(f"unexpected argument {words[0]}{hint}")
    return values


def _printed(values: Mapping[str, Any], flags: Mapping[str, Flag], options: str) -> str:
    """The settings as YAML, without those that the options of --print_config omit."""
    left_out = set(options.split(",")) - {""}
    if not left_out <= _LEFT_OUT:
        raise UsageError(f"--print_config takes skip_default or skip_null, got {options}")
    defaults = {name: None if f.default is REQUIRED else f.default for name, f in flags.items()}
    settings = {**defaults, **values}
    if "skip_default" in left_out:
        settings = {n: value for n, value in settings.items() if value != defaults[n]}
    if left_out - {"skip_default"}:
        settings = {n: value for n, value in settings.items() if value is not None}
    return as_yaml(settings)
