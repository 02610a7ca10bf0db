"""Exceptions for a user's mistake; the command line prints them as one line, without traceback.

A message names a setting by its field in backquotes, such as "pass `per_batch_size` 2 or more".
Callers in Python know the field, and the command line prints ``--per_batch_size`` instead. Only
``config`` and ``commands`` know flags.
"""

from collections.abc import Iterable, Sequence

# What ends a line for some reader of a log, or tells a terminal something, such as to rewrite what
# it shows or to show what follows from right to left; and how it is written in a message.
_ENDS = (*range(9), *range(10, 32), *range(127, 160), 0x2028, 0x2029)
_ORDERS = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))  # embeddings, overrides, isolates
_CONTROLS = {code: repr(chr(code))[1:-1] for code in _ENDS + _ORDERS}
_LONGEST = 8_000  # characters of a message: of a longer one nothing could be read


class InputError(ValueError):
    """An input cannot be used: a folder, an image, a checkpoint, a value.

    The text says where, what was found, what is allowed and, if one step helps, what to do.
    At the command line: exit status 1. It is one line, whatever names from outside are in it.
    """

    def __init__(self, text: object) -> None:
        text = str(text)
        if len(text) > _LONGEST:  # a name or value from outside is; what to do is at the end
            left_out = len(text) - _LONGEST
            start, end = text[: _LONGEST * 3 // 4], text[-_LONGEST // 4 :]
            text = f"{start}... ({left_out} characters left out) ...{end}"
        super().__init__(visible(text))


class UnreadableError(InputError):
    """The file of an image cannot be read or decoded.

    Attributes:
        fault: the text without what to do, for who continues in another way.
    """

    def __init__(self, fault: object, advice: str = "") -> None:
        super().__init__(f"{fault}; {advice}" if advice else fault)
        self.fault = fault


class NotFiniteError(InputError):
    """A network gives nan or infinite numbers.

    Attributes:
        fault: the text without its reasons, for who knows better.
    """

    def __init__(self, fault: object, advice: str = "") -> None:
        super().__init__(f"{fault}; {advice}" if advice else fault)
        self.fault = fault


class TooLargeError(InputError):
    """An image has more bytes or pixels than allowed."""


class UsageError(InputError):
    """A setting is wrong. At the command line: exit status 2."""


# What torch, its allocators and our kernels say where memory is exhausted.
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def cannot_write(path: object, error: OSError, good: str = "") -> InputError:
    """The error for a file of a run that cannot be written.

    Args:
        path: the file.
        error: what the system says.
        good: which checkpoint is good.
    """
    return InputError(f"{path}: cannot be written ({error.strerror}){good and '; '}{good}")


def visible(text: object) -> str:
    """Text with names from outside, in which every control character but a tab is written out."""
    return str(text).translate(_CONTROLS)


def visible_lines(lines: Iterable[object]) -> str:
    """Lines of output, of which no name from outside begins one or tells the terminal something."""
    return "\n".join(map(visible, lines)).encode("utf-8", "backslashreplace").decode()


def one_line(reason: object) -> str:
    """What another library or a damaged file says, for a message of one line."""
    return " ".join(str(reason).split())


def some(names: Sequence[str], most: int = 8) -> str:
    """The first of many names, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
