"""The original's entry: ``python eval.py ...`` is ``densenet121 eval ...``, installed or not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from densenet121.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
