"""Read the DenseNets of Keras applications from ``.h5`` and ``.keras`` with h5py, without Keras.

Nothing in such a file is run; ``keras_config`` reads what it says about images. There are three
layouts: Keras 2 and the ``.h5`` of Keras 3 name tensors by layer (``conv2_block1_0_bn/gamma:0``);
the ``.keras`` and ``.weights.h5`` of Keras 3 by class and number (``layers/conv2d_3/vars/0``), in
the order in which the layers were created. A network that is a layer of another one, as in Keras's
guide to fine-tuning, has a group of its own in each of them.
"""

import io
import itertools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densenet121.checkpoint.foreign.keras_scale import statistic_of
from densenet121.checkpoint.foreign.names import renamed
from densenet121.utils.errors import InputError

EPS = 1.001e-5  # in every batch norm of Keras applications' DenseNet; torch's and ours is 1e-5
_MOST_OBJECTS, _DEEPEST, _MOST_NUMBERS = 20_000, 32, 2**28  # of a file; a number is a float
_BFLOAT16 = np.dtype("V2")  # HDF5 has no such type, so Keras's files have bytes without one
_LARGEST = 2**31  # bytes of one weights file inside a .keras archive
# What the numbered arrays of a layer of Keras 3 are.
_NUMBERED = {
    "conv2d": ("weight", "bias"),
    "batch_normalization": ("weight", "bias", "running_mean", "running_var"),
    "dense": ("weight", "bias"),
}
_LAST = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def is_keras_file(path: Path) -> bool:
    """Whether it is an HDF5 file, or a zip archive with weights of Keras 3."""
    with path.open("rb") as file:
        start = file.read(8)
    if start == b"\x89HDF\r\n\x1a\n":
        return True
    if not start.startswith(b"PK\3\4"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "model.weights.h5" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def read_keras(path: Path) -> dict[str, Tensor]:
    """Parameters under our names, in torch's layouts, for batch norms of eps 1e-5.

    The mean and variance of a Normalization layer are among them, for ``split_statistics``.

    A batch norm divides by ``sqrt(running_var + eps)``. Keras's eps is 1.001e-5 and ours 1e-5: the
    difference, 1e-8, is added to ``running_var`` in float64, which is the same function.

    Raises:
        InputError: damaged, not Keras applications' DenseNet, or h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise InputError(
            f"{path}: reading Keras files needs h5py, which is not installed; "
            "pip install 'densenet121[keras]'"
        ) from None
    try:
        with h5py.File(_hdf5(path), "r") as file:
            found = _collect(file, h5py, path)
    except InputError:
        raise
    except Exception as error:  # a damaged file makes h5py raise exceptions of almost any type
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: damaged or not a Keras file ({reason})") from None
    statistics = {name: own for name in found if (own := statistic_of(name))}
    scales = renamed({n: found.pop(n) for n in statistics}, statistics.__getitem__, path)
    numbered = any(name.startswith("layers/") for name in found)
    tensors = _by_number(found, path) if numbered else _by_name(found, path)
    return {name: _to_torch(name, array, path) for name, array in (tensors | scales).items()}


def _hdf5(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("model.weights.h5")
        if entry.file_size > _LARGEST:
            raise InputError(
                f"{path}: its weights have {entry.file_size} bytes; the limit is {_LARGEST}"
            )
        return io.BytesIO(archive.read(entry))


def _collect(file: Any, h5py: Any, path: Path) -> dict[str, "np.ndarray[Any, Any]"]:
    """Every HDF5 dataset by path; what is in other files, and cyclic links, are passed over.

    Not by h5py's visititems: for each group it asks for facts that a damaged file can make libhdf5
    look for without end.
    """
    found: dict[str, np.ndarray[Any, Any]] = {}
    waiting: list[tuple[str, Any]] = [("", file)]
    objects = numbers = 0
    while waiting:
        name, item = waiting.pop()
        objects += 1
        if objects > _MOST_OBJECTS or name.count("/") > _DEEPEST:
            raise InputError(
                f"{path}: more than {_MOST_OBJECTS} objects, or deeper than {_DEEPEST} groups"
            )
        if isinstance(item, h5py.Group):
            inside = list(itertools.islice(item, _MOST_OBJECTS))
            hard = [n for n in inside if isinstance(item.get(n, getlink=True), h5py.HardLink)]
            waiting += [(f"{name}/{n}".lstrip("/"), item[n]) for n in reversed(hard)]
        elif isinstance(item, h5py.Dataset) and "optimizer" not in name:
            elsewhere = item.external or item.is_virtual  # its numbers are in another file
            kept = item.dtype.kind == "f" or item.dtype == _BFLOAT16
            if not kept or item.size > _MOST_NUMBERS or elsewhere:
                continue
            numbers += item.size
            if numbers > 2 * _MOST_NUMBERS:
                raise InputError(f"{path}: more than {2 * _MOST_NUMBERS} numbers")
            found[name] = _floats(item[()])
    return found


def _floats(array: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The numbers of bfloat16, the upper half of float32, in float32; others as they are."""
    if array.dtype != _BFLOAT16:
        return array
    return (np.asarray(array).view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _by_name(
    found: dict[str, "np.ndarray[Any, Any]"], path: Path
) -> dict[str, "np.ndarray[Any, Any]"]:
    """Layers by Keras's names. One dense layer is the classifier; several are another head."""
    within = _group_of(r"(?:model_weights/)?((?:[^/]+/)*?)conv1[_/]conv/.*", found)

    def plain(name: str) -> str:
        return name.removeprefix("model_weights/").removeprefix(within)

    names = {plain(name): array.ndim for name, array in found.items()}
    dense = {n.partition("/")[0] for n, ndim in names.items() if ndim == 2 and not _layer(n)}

    def rename(full: str) -> str:
        name = plain(full)
        last = _LAST.get(name.rpartition("/")[2].partition(":")[0])
        own = name.partition("/")[0]
        layer = _layer(name) or (own if own in dense else None)
        if own in dense and len(dense) == 1:
            layer = "classifier"
        if last is None or layer is None:
            raise InputError(
                f'{path}: "{full}" is not part of Keras applications\' DenseNet, the only '
                "supported Keras network"
            )
        return f"{layer}.{last}"

    return renamed(found, rename, path)


def _group_of(first: str, found: Mapping[str, object]) -> str:
    """The group of the network within another one, by its first convolution; empty without."""
    groups = [match[1] for name in found if (match := re.fullmatch(first, name))]
    return min(groups, key=len, default="")


def _layer(name: str) -> str | None:
    """Our module name for a path such as ``conv2_block1/1/bn`` or ``pool2_conv``."""
    found = re.match(r"conv(\d)_block(\d+)[_/](\d)[_/](bn|conv)/", name)
    if found:
        block, layer, step, kind = int(found[1]) - 1, int(found[2]), int(found[3]), found[4]
        # Keras counts 0_bn, 1_conv, 1_bn, 2_conv.
        number = step if kind == "conv" else step + 1
        kind = "norm" if kind == "bn" else "conv"
        return f"features.denseblock{block}.denselayer{layer}.{kind}{number}"
    found = re.match(r"pool(\d)[_/](bn|conv)/", name)
    if found:
        kind = "norm" if found[2] == "bn" else "conv"
        return f"features.transition{int(found[1]) - 1}.{kind}"
    found = re.match(r"conv1[_/](bn|conv)/", name)
    if found:
        return "features.norm0" if found[1] == "bn" else "features.conv0"
    if re.match(r"bn/", name):
        return "features.norm5"
    return None


def _by_number(
    found: dict[str, "np.ndarray[Any, Any]"], path: Path
) -> dict[str, "np.ndarray[Any, Any]"]:
    """Layers of Keras 3 by class and number, in the order of the network."""
    layers: dict[str, dict[int, dict[int, np.ndarray[Any, Any]]]] = {k: {} for k in _NUMBERED}
    within = _group_of(r"(.*?)layers/conv2d/vars/0", found)
    flat = renamed(found, lambda name: name.removeprefix(within), path)
    for name, array in flat.items():
        match = re.fullmatch(
            r"layers/(conv2d|batch_normalization|dense)(?:_([1-9]\d*))?/vars/(\d)", name
        )
        if match is None or int(match[3]) >= len(_NUMBERED[match[1]]):
            raise InputError(
                f'{path}: "{name}" is not part of Keras applications\' DenseNet, the only '
                "supported Keras network"
            )
        layers[match[1]].setdefault(int(match[2] or 0), {})[int(match[3])] = array
    convs = [layers["conv2d"][n] for n in sorted(layers["conv2d"])]
    norms = [layers["batch_normalization"][n] for n in sorted(layers["batch_normalization"])]
    tensors: dict[str, np.ndarray[Any, Any]] = {}
    conv_names, norm_names = _order(convs, path)
    if (len(convs), len(norms)) != (len(conv_names), len(norm_names)):
        raise InputError(
            f"{path}: {len(convs)} convolutions and {len(norms)} batch norms do not match any "
            "DenseNet of Keras applications"
        )
    dense = sorted(layers["dense"])
    heads = ["classifier"] if len(dense) == 1 else [f"dense_{n}" if n else "dense" for n in dense]
    for kind, names, values in (
        ("conv2d", conv_names, convs),
        ("batch_normalization", norm_names, norms),
        ("dense", heads, [layers["dense"][n] for n in dense]),
    ):
        for name, arrays in zip(names, values, strict=True):
            tensors |= {f"{name}.{_NUMBERED[kind][i]}": array for i, array in arrays.items()}
    return tensors


def _order(
    convs: list[dict[int, "np.ndarray[Any, Any]"]], path: Path
) -> tuple[list[str], list[str]]:
    """Names of convolutions and batch norms in Keras's order, from the convolutions' shapes."""
    conv_names, norm_names = ["features.conv0"], ["features.norm0"]
    block, layer, position = 1, 0, 1
    while position < len(convs):
        shape = convs[position].get(0, np.empty(0)).shape
        following = (
            convs[position + 1].get(0, np.empty(0)).shape if position + 1 < len(convs) else ()
        )
        if len(shape) != 4:
            raise InputError(f"{path}: convolution {position} has shape {shape}")
        if following[:2] == (3, 3):
            layer += 1
            where = f"features.denseblock{block}.denselayer{layer}."
            conv_names += [f"{where}conv1", f"{where}conv2"]
            norm_names += [f"{where}norm1", f"{where}norm2"]
            position += 2
        else:
            conv_names.append(f"features.transition{block}.conv")
            norm_names.append(f"features.transition{block}.norm")
            block, layer, position = block + 1, 0, position + 1
    return conv_names, [*norm_names, "features.norm5"]


def _to_torch(name: str, array: "np.ndarray[Any, Any]", path: Path) -> Tensor:
    if array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)  # height, width, in, out -> out, in, height, width
    elif array.ndim == 2:
        array = array.T
    if name.endswith("running_var"):
        array = array.astype(np.float64) + (EPS - 1e-5)
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32).copy())
