"""Refuse pickles that a few bytes make endless, before they are read.

A pickle may name a value that it has made as often as it wants. Tuples of a tuple named twice, in
each other 60 times, have 2 ** 60 parts in 300 bytes: to use one as the key of a dict, Python looks
at every part and cannot be interrupted. Of tuples a million deep it ends with a crash. Nothing is
made here, the parts are only counted.
"""

import pickletools
from typing import IO, Any

_MOST_PARTS = 10_000_000  # that are named again; in the pickles of networks and images thousands
_DEEPEST = 1000
_MARK = (0, -1)
# What puts the values after it into a list, a set, a dict or an object, none of which can be a key.
_INTO = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_Size = tuple[int, int]  # number of parts of a value, and how deep they are


def check_pickle(stream: IO[bytes] | Any) -> None:
    """Read a pickle to its end, and make nothing of it.

    Args:
        stream: at the beginning of the pickle.

    Raises:
        ValueError: values are within values too often or too deep, or it is damaged.
    """
    stack: list[_Size] = []
    memo: dict[Any, _Size] = {}
    again = deepest = 0
    try:
        for code, argument, _ in pickletools.genops(stream):
            if code.name in ("GET", "BINGET", "LONG_BINGET", "DUP"):
                stack.append(stack[-1] if code.name == "DUP" else memo[argument])
                again += stack[-1][0]
            elif code.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if code.name == "MEMOIZE" else argument] = stack[-1]
            elif code.name == "MARK":
                stack.append(_MARK)
            else:
                taken = _taken(stack, code)
                if code.stack_after and code.name not in _INTO:
                    depth = 1 + max((depth for _, depth in taken), default=0)
                    stack.append((1 + sum(parts for parts, _ in taken), depth))
                    deepest = max(deepest, depth)
            if again > _MOST_PARTS or deepest > _DEEPEST:
                break
    except (IndexError, KeyError, ValueError, TypeError, OverflowError, MemoryError):
        raise ValueError("its pickle cannot be read") from None
    if again > _MOST_PARTS or deepest > _DEEPEST:
        raise ValueError(
            f"it has values within values more than {_MOST_PARTS:,} times or {_DEEPEST:,} deep"
        )


def _taken(stack: list[_Size], code: Any) -> list[_Size]:
    """Take what an operation uses from the stack."""
    uses = code.stack_before[code.name in _INTO :]  # the container stays
    begin = len(stack) - len(uses)
    if pickletools.markobject in uses:
        begin = len(stack) - 1 - stack[::-1].index(_MARK)
    if begin < 0:
        raise IndexError
    taken = stack[begin:]
    del stack[begin:]
    return taken
