"""Write docs/reference/commands/ from the dataclasses that the settings of the commands are.

python tools/reference.py          writes the pages
python tools/reference.py --check  exits 1 if one of them is not up to date
"""

import dataclasses
import inspect
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from docstring_parser import parse

from densenet121 import cli
from densenet121.cli import COMMANDS

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference" / "commands"
WRITTEN_BY = "<!-- Written by `python tools/reference.py`; do not edit. -->\n"
WORDS: dict[object, str] = {int: "whole number", float: "number", bool: "switch", str: "text"}
GUIDES = {
    "train": "guides/training.md",
    "eval": "guides/training.md#evaluate",
    "demo": "tutorials/first-model.md",
    "audit": "guides/data.md#check-the-images",
    "pack": "guides/data.md#pack-images-into-shards",
    "report": "reference/run-folder.md",
    "bench": "internals/performance.md#measure-your-machine",
    "convert": "guides/weights.md",
    "inspect": "guides/weights.md",
    "predict": "guides/predict.md",
    "compare": "guides/predict.md#compare-two-evaluations",
    "calibrate": "guides/predict.md#calibrate",
    "export": "guides/export.md",
    "serve": "guides/serve.md",
}
INDEX = """# Commands and settings

`densenet121 COMMAND --help` prints what these pages say.

{rows}

Every command also takes

- `--config FILE`: a YAML file of settings; those on the command line override it;
- `--print_config`: print the effective settings and exit;
- `--help`.

Unknown settings are refused, with the nearest name. Names cannot be abbreviated.

## Exit status
| status | meaning |
|---|---|
| 0 | done |
| 1 | the run failed, its result is partial, or a check found a fault |
| 2 | wrong usage |
| 143 | stopped by a signal, after saving |

A mistake is one line on standard error that says what is wrong and what is allowed.
"""


def pages() -> dict[str, str]:
    """The text of each page, by the name of its file."""
    written = {f"{name}.md": page(name, config) for name, config in COMMANDS.items()}
    rows = [f"| [{name}]({name}.md) | {summary(config)} |" for name, config in COMMANDS.items()]
    table = "\n".join(["| command | what it does |", "|---|---|", *rows])
    written["index.md"] = WRITTEN_BY + INDEX.format(rows=table)
    return written


def page(name: str, config: type[Any]) -> str:
    """One command: what it does, how it is called, and every setting under its section."""
    settings = settings_of(name, config)
    sections: dict[str, list[Setting]] = {}
    for setting in settings:
        sections.setdefault(setting.section, []).append(setting)
    text = (
        f"{WRITTEN_BY}# {name}\n\n{summary(config)}. See also [the guide](../../{GUIDES[name]}).\n"
    )
    text += f"```\n{usage(name, settings)}\n```\n"
    for section, members in sections.items():
        if section:
            text += f"\n## {section[0].upper()}{section[1:]}\n"
        text += "".join(entry(setting) for setting in members)
    return text


@dataclass(frozen=True)
class Setting:
    """One field of a command's dataclass.

    Attributes:
        label: as a user types it.
        positional: given by its place, without a flag.
        required: there is no default.
        section: the heading it belongs to, "" without one.
        values: what it takes, in words.
        default: in Markdown.
        meaning: one sentence.
    """

    label: str
    positional: bool
    required: bool
    section: str
    values: str
    default: str
    meaning: str


def settings_of(name: str, config: type[Any]) -> list[Setting]:
    """The settings of a command: positional ones first, then as the classes define them."""
    hints = get_type_hints(config)
    places = getattr(config, "positional", getattr(cli, "POSITIONAL", {}).get(name, ()))
    found = []
    for field in dataclasses.fields(config):
        home = next(c for c in config.__mro__ if field.name in inspect.get_annotations(c))
        explained = {p.arg_name: p.description or "" for p in parse(home.__doc__ or "").params}
        meaning = " ".join(explained[field.name].split()).rstrip(".")
        stated = re.search(r" ?\(default: (.*)\)$", meaning)
        setting = Setting(
            label=field.name.upper() if field.name in places else f"--{field.name}",
            positional=field.name in places,
            required=field.default is dataclasses.MISSING,
            section="arguments"
            if field.name in places
            else home.__dict__.get("section", "settings"),
            values=kind(hints[field.name]),
            default=stated[1] if stated else shown(field.default),
            meaning=meaning[: stated.start()] if stated else meaning,
        )
        found.append(setting)
    return sorted(found, key=lambda setting: not setting.positional)


def shown(default: object) -> str:
    """A default that the docstring does not explain."""
    if default is dataclasses.MISSING:
        return "required"
    if default is None or default is False:
        return "none" if default is None else "off"
    return f"`{default}`"


def summary(config: type[Any]) -> str:
    """The first line of the docstring, without its full stop."""
    return (config.__doc__ or "").splitlines()[0].rstrip(".")


def usage(name: str, settings: list[Setting]) -> str:
    """The command with its arguments and required settings."""
    places = [setting.label for setting in settings if setting.positional]
    required = [
        f"{setting.label} {setting.label.strip('-').upper()}"
        for setting in settings
        if setting.required and not setting.positional
    ]
    return " ".join(["densenet121", name, *places, *required, "[settings]"])


def entry(setting: Setting) -> str:
    """A heading, what a setting takes, its default, and what it means."""
    default = "required" if setting.required else f"default: {setting.default}"
    first = setting.meaning.split()[0].strip(":,;")
    is_value = first in {"cpu", "auto"} or f"`{first}`" in setting.values
    meaning = setting.meaning if is_value else setting.meaning[0].upper() + setting.meaning[1:]
    return f"\n### `{setting.label}`\n{setting.values} · {default}\n\n{meaning}.\n"


def kind(annotation: object) -> str:
    """What values a setting takes, in words."""
    if get_origin(annotation) is list:
        return "one or more"
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in get_args(annotation))
    choices = [choice for choice in get_args(annotation) or (annotation,) if choice is not NoneType]
    return " or ".join(WORDS[choice] if choice in WORDS else kind(choice) for choice in choices)


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check only compare."""
    wanted = pages()
    found = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    if "--check" in arguments:
        return int(found != wanted)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in found.keys() - wanted.keys():
        (FOLDER / name).unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
