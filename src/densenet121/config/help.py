"""The text of ``--help``, generated from the settings classes and formatted by argparse."""

import argparse
import functools
import shutil
from collections.abc import Mapping
from typing import Any

from densenet121.config.flags import NO_TEXTS, REQUIRED, flags_of

_WIDEST = 100  # columns; longer lines are hard to read
# Every command has these.
_COMMON: dict[tuple[str, ...], dict[str, Any]] = {
    ("--config",): {
        "metavar": "FILE",
        "help": "YAML file of settings, one NAME: VALUE per line; flags override it",
    },
    ("--print_config",): {
        "action": "store_true",
        "help": "print the settings as YAML that --config reads, and exit; "
        "--print_config=skip_default omits those that have their defaults",
    },
    ("-h", "--help"): {"action": "store_true", "help": "print this help and exit"},
}


def summary(config_class: type[Any]) -> str:
    """Summary of a command: the first paragraph of the docstring of its settings."""
    if NO_TEXTS:  # the docstring is dataclasses' own
        return "python -OO drops the texts of this help; run it without -OO to read them"
    return " ".join((config_class.__doc__ or "").partition("\n\n")[0].split())


def help_text(command: str, config_class: type[Any]) -> str:
    """The help of one command: positional arguments first, then its flags in sections."""
    usage = [f"densenet121 {command}"]
    sections: dict[str, Any] = {}
    parser = _parser(summary(config_class))
    for flag in flags_of(config_class):
        title = "arguments" if flag.positional else flag.section
        if title not in sections:
            sections[title] = parser.add_argument_group(title)
        more: dict[str, Any] = {"metavar": flag.label if flag.positional else flag.placeholder}
        if flag.switch:
            more = {"action": "store_true"}
        text = flag.meaning
        if flag.positional:
            usage.append(f"{flag.label} [{flag.label} ...]" if flag.many else flag.label)
        elif flag.default is REQUIRED:
            usage.append(f"{flag.label} {flag.placeholder}")
            text += " (required)"
        else:
            text += f" (default: {flag.default_text})"
        sections[title].add_argument(
            flag.name if flag.positional else flag.label, help=text.replace("%", "%%"), **more
        )
    common = parser.add_argument_group("settings and help")
    if config_class.recipes:
        chosen = "settings that were chosen together; a file of --config and flags override them"
        common.add_argument("--recipe", metavar="|".join(config_class.recipes), help=chosen)
    for names, options in _COMMON.items():
        common.add_argument(*names, **options)
    parser.usage = " ".join([*usage, "[flags]"])
    return parser.format_help()


def overview(description: str, groups: Mapping[str, Mapping[str, type[Any]]]) -> str:
    """The help of the program: its commands by group."""
    parser = _parser(description)
    parser.usage = "densenet121 COMMAND [arguments]"
    parser.epilog = "densenet121 COMMAND --help explains a command."
    for title, commands in groups.items():
        group = parser.add_argument_group(title)
        for name, config_class in commands.items():
            group.add_argument(name, help=summary(config_class).replace("%", "%%"))
    flags = parser.add_argument_group("flags")
    flags.add_argument("--version", action="store_true", help="print the version and exit")
    flags.add_argument("-h", "--help", action="store_true", help="print this help and exit")
    return parser.format_help()


def _parser(description: str) -> argparse.ArgumentParser:
    width = min(shutil.get_terminal_size().columns, _WIDEST) - 2
    return argparse.ArgumentParser(
        description=description,
        add_help=False,
        formatter_class=functools.partial(
            argparse.HelpFormatter, width=width, max_help_position=min(24, width // 3)
        ),
    )
