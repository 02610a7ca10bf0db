"""Write the README's tables of flags from the dataclasses that the flags are made of.

python docs/flag_table.py          writes them
python docs/flag_table.py --check  exits 1 if README.md is not up to date
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from densenet121.cli import COMMANDS
from densenet121.config import flags_of

README = Path(__file__).resolve().parents[1] / "README.md"


def table(config_class: type[Any]) -> str:
    """A row a field: flag, default, meaning."""
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    for flag in flags_of(config_class):
        # What the code says is marked as code, what the help text says is not.
        written = str(flag.default) == flag.default_text
        shown = f"`{flag.default_text}`" if written else flag.default_text
        shown = "required" if flag.required else shown
        meaning = flag.meaning.replace("|", "\\|")
        rows.append(f"| `{flag.label}` | {shown} | {meaning} |")
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
