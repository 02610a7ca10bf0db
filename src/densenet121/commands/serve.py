"""The ``serve`` command."""

from densenet121.commands import DONE
from densenet121.config import ServeConfig
from densenet121.utils.errors import InputError


def run(config: ServeConfig) -> int:
    """Serve until a signal.

    Raises:
        InputError: the packages of the extra ``serve`` are not installed.
    """
    try:
        from densenet121.serve import serve
    except ModuleNotFoundError as error:
        raise InputError(f"serve needs {error.name}; pip install 'densenet121[serve]'") from None
    serve(config)
    return DONE
