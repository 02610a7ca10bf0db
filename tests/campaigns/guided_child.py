"""One reader under atheris: ``python -m campaigns.guided_child READER FOLDER [libFuzzer's flags]``.

FOLDER is for files of its own. libFuzzer's folders and files follow its flags; of a file alone it
runs this one case.
"""

import sys
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]
import torch._weights_only_unpickler as torch_pickle  # before the hook: torch would take a minute

# The package, and what it gives others' bytes to.
INSTRUMENTED = ["densenet121", "python_multipart", "tarfile"]


def main(arguments: list[str]) -> None:
    """Does not return: libFuzzer ends the process."""
    sys.modules.pop("tarfile", None)
    unpickler: Any = torch_pickle.Unpickler
    unpickler.load = atheris.instrument_func(unpickler.load)
    with atheris.instrument_imports(include=INSTRUMENTED):
        from campaigns.campaign import watch
        from campaigns.guided_cases import attempt, reader_of

        reader = reader_of(arguments[1])
        reader.load(Path(arguments[2]))
        for data in reader.seeds():
            attempt(reader, data)  # imports what is imported late

    def one(data: bytes) -> None:
        attempt(reader, data)

    watch()
    atheris.Setup([arguments[0], *arguments[3:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
