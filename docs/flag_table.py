"""Write the README's tables of flags from the dataclasses that the flags are made of.

python docs/flag_table.py          writes them
python docs/flag_table.py --check  exits 1 if README.md is not up to date
"""

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from docstring_parser import parse

from densenet121.cli import COMMANDS, is_positional

README = Path(__file__).resolve().parents[1] / "README.md"


def table(config_class: type[Any]) -> str:
    """A row a field: flag, default, meaning."""
    meanings = {p.arg_name: p.description or "" for p in parse(config_class.__doc__ or "").params}
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    for field in dataclasses.fields(config_class):
        meaning = " ".join(meanings[field.name].split()).rstrip(".").replace("|", "\\|")
        default = re.search(r" ?\(default: (.*)\)$", meaning)
        if field.default is dataclasses.MISSING:
            shown = "required"
        elif field.default is False:
            shown = "off"
        elif field.default is None:
            shown = default[1] if default else "none"
        else:
            shown = f"`{field.default}`"
        if default:
            meaning = meaning[: default.start()]
        name = field.name.upper() if is_positional(field.name) else f"--{field.name}"
        rows.append(f"| `{name}` | {shown} | {meaning} |")
    return "\n".join(rows)


def with_tables(text: str) -> str:
    """The README's text with every table between its two marks made anew."""
    for name, config_class in COMMANDS.items():
        start, end = f"<!-- flags of {name} -->", f"<!-- end of flags of {name} -->"
        if start in text:
            before, rest = text.split(start, 1)
            _, after = rest.split(end, 1)
            text = f"{before}{start}\n{table(config_class)}\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    """Write README.md, or with --check only compare."""
    text = README.read_text(encoding="utf-8")
    if "--check" in arguments:
        return int(text != with_tables(text))
    README.write_text(with_tables(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
