"""The original's entry: ``python eval.py ...`` is ``densenet121 eval ...``, installed or not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from densenet121.__main__ import start

if __name__ == "__main__":
    sys.exit(start(["eval", *sys.argv[1:]]))
