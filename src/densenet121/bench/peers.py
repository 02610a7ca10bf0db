"""Where the scripts of other libraries are: in a clone, and not in an installed package."""

from pathlib import Path

from densenet121.utils.errors import UsageError


def peer_script(name: str) -> Path:
    """A script of the folder benchmarks/.

    Raises:
        UsageError: this is not a clone of the project.
    """
    script = Path(__file__).resolve().parents[3] / "benchmarks" / name
    if not script.is_file():
        raise UsageError(
            "libraries to compare against need a clone of the project: the installed package does "
            f"not hold benchmarks/{name}"
        )
    return script
