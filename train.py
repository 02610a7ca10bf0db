"""The original's entry: ``python train.py ...`` is ``densenet121 train ...``, installed or not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from densenet121.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
