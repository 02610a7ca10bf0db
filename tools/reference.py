"""Write docs/reference/commands/ from the dataclasses that the settings of the commands are.

python tools/reference.py          writes the pages
python tools/reference.py --check  exits 1 if one of them is not up to date
"""

import sys
from pathlib import Path
from typing import Any

from densenet121.cli import COMMANDS
from densenet121.config import Flag, flags_of

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference" / "commands"
WRITTEN_BY = "<!-- Written by `python tools/reference.py`; do not edit. -->\n"
GUIDES = {
    "train": "guides/training.md",
    "eval": "guides/training.md#evaluate",
    "lr-find": "guides/fine-tuning.md#find-a-learning-rate",
    "probe": "guides/fine-tuning.md#a-new-head-in-seconds",
    "metrics": "guides/metrics.md",
    "demo": "tutorials/first-model.md",
    "audit": "guides/data.md#check-the-images",
    "show": "guides/augmentation.md#see-it-first",
    "split": "guides/data.md#split-images",
    "study": "guides/study.md",
    "pack": "guides/data.md#pack-images-into-shards",
    "report": "reference/run-folder.md",
    "card": "guides/hub.md",
    "bench": "internals/performance.md#measure-your-machine",
    "convert": "guides/weights.md",
    "average": "guides/weights.md#average-several-weights",
    "inspect": "guides/weights.md",
    "predict": "guides/predict.md",
    "compare": "guides/predict.md#compare-two-evaluations",
    "calibrate": "guides/predict.md#calibrate",
    "export": "guides/export.md",
    "serve": "guides/serve.md",
    "rank-table": "guides/distributed.md#ascend",
}
INDEX = """# Commands and settings

`densenet121 COMMAND --help` prints what these pages say.

{rows}

Every command also takes

- `--config FILE`: a YAML file of settings; those on the command line override it;
- `--print_config`: print the effective settings and exit;
- `--help`.

Unknown settings are refused, with the nearest name. Names cannot be abbreviated.
An error about a value from a file or a recipe says where the value is from.

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
    flags = flags_of(config)
    sections: dict[str, list[Flag]] = {}
    for flag in flags:
        sections.setdefault("arguments" if flag.positional else flag.section, []).append(flag)
    lines = [WRITTEN_BY + f"# {name}", ""]
    lines += [f"{summary(config)}. See also [the guide](../../{GUIDES[name]})."]
    lines += ["```", usage(name, flags), "```"]
    if config.recipes:
        names = ", ".join(f"`{recipe}`" for recipe in config.recipes)
        lines += ["", f"`--recipe NAME` takes settings that were chosen together: {names}."]
        lines += [
            "A file of `--config` and flags override them; `--print_config` shows the result."
        ]
    for section, members in sections.items():
        lines += ["", f"## {section.capitalize()}", *map(entry, members)]
    return "\n".join(lines) + "\n"


def summary(config: type[Any]) -> str:
    """The first line of the docstring, without its full stop."""
    return (config.__doc__ or "").splitlines()[0].rstrip(".")


def usage(name: str, flags: tuple[Flag, ...]) -> str:
    """The command with its arguments and required settings."""
    places = [flag.label + ("..." if flag.many else "") for flag in flags if flag.positional]
    required = [
        f"{flag.label} {flag.placeholder}"
        for flag in flags
        if flag.required and not flag.positional
    ]
    return " ".join(["densenet121", name, *places, *required, "[settings]"])


def entry(flag: Flag) -> str:
    """A heading, what a setting takes, its default, and what it means."""
    # What the code says is marked as code, what the help text says is not.
    written = str(flag.default) == flag.default_text
    default = f"default: `{flag.default_text}`" if written else f"default: {flag.default_text}"
    facts = [values(flag), "required" if flag.required else default]
    first, _, rest = flag.meaning.partition(" ")
    choices = {"cpu,", "auto", *(str(choice) for choice in flag.choices)}
    meaning = flag.meaning if first in choices else first[0].upper() + first[1:] + f" {rest}"
    return f"\n### `{flag.label}`\n{' · '.join(filter(None, facts))}\n\n{meaning}."


def values(flag: Flag) -> str:
    """What a setting takes, in words."""
    if flag.switch:
        return "switch"
    if flag.choices:
        return "one of " + ", ".join(f"`{choice}`" for choice in flag.choices)
    return f"`{flag.placeholder}`" if flag.placeholder else ""


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
        if found.get(name) != text:  # tests may read the pages meanwhile
            (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
