"""Find the scripts for other libraries, which are in a clone but not in the installed package."""

from pathlib import Path

from densenet121.utils.errors import UsageError


def peer_script(name: str) -> Path:
    """The path of a script in the folder benchmarks/.

    Raises:
        UsageError: this is not a clone of the project.
    """
    script = Path(__file__).resolve().parents[3] / "benchmarks" / name
    if not script.is_file():
        raise UsageError(
            "comparing with other libraries needs a clone of the project: the installed package "
            f"does not include benchmarks/{name}"
        )
    return script
