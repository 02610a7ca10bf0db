"""``python -m densenet121``."""

import sys

from densenet121.cli import main

if __name__ == "__main__":
    sys.exit(main())
