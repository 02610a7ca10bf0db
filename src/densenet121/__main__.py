"""``python -m densenet121``, and the installed command."""

import sys
from collections.abc import Sequence


def start(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; Ctrl-C while it is still imported is one line too."""
    try:
        from densenet121.cli import main

        return main(arguments)
    except KeyboardInterrupt:
        print("densenet121: stopped; everything saved before is intact", file=sys.stderr)  # noqa: T201
        return 143


if __name__ == "__main__":
    sys.exit(start())
