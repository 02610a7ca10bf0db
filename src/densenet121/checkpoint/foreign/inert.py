"""Stand-ins for harmless types that training scripts save beside the weights.

A pickle names a type and asks for it to be called. Here the name gives a stand-in, which keeps
nothing and does nothing, so neither the type nor its module takes part. The values are lost, but
only those beside the weights: a tensor is never one of them.
"""

import argparse
from collections.abc import Callable
from typing import Any


class _Inert:
    """An object of any arguments and state; subclasses have the name of what they stand for."""

    def __new__(cls, *_: Any) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _Dictionary:
    """Stands for a kind of dict, whose content is kept."""

    def __new__(cls, *_: Any) -> Any:
        return {}


class _List:
    """Stands for a kind of list."""

    def __new__(cls, *_: Any) -> Any:
        return []


_NAMES = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in (
        "scalar", "_reconstruct",
    )),
    *(f"numpy.{name}" for name in ("dtype", "ndarray")),
    *(f"numpy.{name}" for name in ("float64", "float32", "float16", "int64", "int32", "bool_")),
    *(f"numpy.dtypes.{name}DType" for name in ("Float64", "Float32", "Int64", "Int32", "Bool")),
    *(f"pathlib.{module}{name}" for module in ("", "_local.") for name in (
        "PosixPath", "WindowsPath", "Path", "PurePosixPath", "PureWindowsPath", "PurePath",
    )),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *(f"builtins.{name}" for name in (
        "list", "dict", "set", "frozenset", "tuple", "int", "float", "bool", "str", "bytes",
        "range", "slice", "complex",
    )),
    "decimal.Decimal", "fractions.Fraction", "uuid.UUID", "types.SimpleNamespace",
)  # fmt: skip
_DICTIONARIES = (
    "collections.defaultdict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)


def stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What torch's reader may make, as ``torch.serialization.safe_globals`` takes it."""
    found: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        # It has a training script's flags; unpickling one only sets attributes.
        argparse.Namespace,
        (_List, "collections.deque"),
    ]
    found += [(type(name.rpartition(".")[2], (_Inert,), {}), name) for name in _NAMES]
    return found + [(_Dictionary, name) for name in _DICTIONARIES]
