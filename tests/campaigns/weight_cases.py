"""Damaged weights of six formats, and pickles that try to run code."""

import contextlib
import io
import json
import pickle
import pickletools
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from campaigns.campaign import Target
from campaigns.image_cases import one_line
from campaigns.mutation import changed, damaged, json_text
from densenet121.checkpoint.foreign.mindspore import encode
from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import METADATA_KEY, _digest, save
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.inference.classifier import Choices
from densenet121.inference.onnx_model import load_onnx
from densenet121.utils.errors import InputError

from helpers.weights import write_weights

Case = tuple[str, bytes]
_SUFFIX = {"onnx": ".onnx", "keras": ".h5", "torch": ".pth", "legacy": ".pth", "mindspore": ".ckpt"}
_FILES: dict[str, list[bytes]] = {}
_FOLDER: list[Path] = []


def tensors() -> dict[str, torch.Tensor]:
    """A few of a network's, so that a file is small."""
    generator = torch.Generator().manual_seed(0)
    named = {
        "features.conv0.weight": (8, 3, 3, 3),
        "features.norm0.weight": (8,),
        "features.norm5.weight": (6,),
        "classifier.weight": (3, 6),
        "classifier.bias": (3,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in named.items()}


def corpus(folder: Path) -> dict[str, list[bytes]]:
    """Small files: format to contents."""
    import safetensors.torch

    some, file = tensors(), folder / "made"
    whole = write_weights(folder / "whole.safetensors")
    content = read_content(whole.read_bytes())
    save(file, "weights", some, content)
    found = {"native": [file.read_bytes()], "safetensors": [safetensors.torch.save(some)]}
    found["mindspore"] = [encode(some), encode(some, crc=True)]
    for name, new in (("torch", True), ("legacy", False)):
        out = []
        for value in (some, {"state_dict": some, "epoch": 3, "path": Path("x")}):
            stream = io.BytesIO()
            torch.save(value, stream, _use_new_zipfile_serialization=new)
            out.append(stream.getvalue())
        found[name] = out
    with contextlib.suppress(ImportError):
        found["keras"] = [keras_file(folder)]
    with contextlib.suppress(ImportError):
        found["onnx"] = [onnx_file(content)]
    return found


def read_content(data: bytes) -> dict[str, Any]:
    """What a native file records."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    content: dict[str, Any] = json.loads(
        json.loads(header["__metadata__"][METADATA_KEY])["content"]
    )
    return content


def keras_file(folder: Path) -> bytes:
    """Some of a network's layers as Keras writes them."""
    import h5py
    import numpy as np

    path = folder / "k.h5"
    with h5py.File(path, "w") as file:
        for layer, names in (("conv1_conv", ("kernel",)), ("bn", ("gamma", "beta"))):
            for name in names:
                shape = (7, 7, 3, 4) if name == "kernel" else (4,)
                file[f"{layer}/{layer}/{name}:0"] = np.ones(shape, np.float32)
    return path.read_bytes()


def onnx_file(content: dict[str, Any]) -> bytes:
    """A network of one layer with the metadata of `export`."""
    import onnx
    from onnx import TensorProto, helper

    size = content["model"]["preprocessing"]["image_size"]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, *size])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    node = helper.make_node("ReduceMean", ["images", "axes"], ["logits"], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph([node], "g", [given], [result], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(content)})
    return bytes(model.SerializeToString())


def load(folder: Path) -> None:
    """Make the files once."""
    torch.set_num_threads(1)
    _FOLDER[:] = [folder]
    _FILES.update(corpus(folder))


def make(rng: random.Random) -> Case:
    """Damaged bytes; or a file that is whole, with a wrong description."""
    name = rng.choice(sorted(_FILES))
    if name == "native" and rng.random() < 0.5:
        return name, resigned(rng)
    data = rng.choice(_FILES[name])
    if name == "safetensors" and rng.random() < 0.5:
        size = int.from_bytes(data[:8], "little")
        header = json_text(rng, json.loads(data[8 : 8 + size]))
        return name, len(header).to_bytes(8, "little") + header + data[8 + size :]
    if name == "torch" and rng.random() < 0.5:
        return name, with_pickle(rng, data)
    return name, damaged(rng, data, _FILES[rng.choice(sorted(_FILES))])


def resigned(rng: random.Random) -> bytes:
    """A native file with a changed description and a checksum that is right."""
    text = json_text(rng, sound_content()).decode("utf-8", "replace")
    kind = rng.choice(("weights", "checkpoint"))
    with contextlib.suppress(UnicodeEncodeError):
        return described(
            kind, text, lambda note: changed(rng, note) if rng.random() < 0.2 else note
        )
    return b""


def sound_content() -> dict[str, Any]:
    """The description of a network."""
    return read_content(_FILES["native"][0])


def described(kind: str, text: str, change: Callable[[Any], Any] = lambda note: note) -> bytes:
    """A native file with this description and a checksum that is right."""
    import safetensors.torch

    some: dict[str, torch.Tensor] = dict(tensors())
    note: Any = {"format": 1, "kind": kind, "content": text}
    note["sha256"] = _digest(kind, text, some)
    return bytes(safetensors.torch.save(some, {METADATA_KEY: json.dumps(change(note))}))


def run_description(data: bytes) -> str:
    """A native file with this text as its description."""
    return run(("native", described("weights", data.decode("utf-8", "replace"))))


def with_pickle(rng: random.Random, data: bytes) -> bytes:
    """A whole zip whose pickle is damaged."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = damaged(rng, content)
            new.writestr(name, content)
    return out.getvalue()


def run(case: Case) -> str:
    """Every way to a weights file: whole, by its shapes, and as a network."""
    name, data = case
    path = _FOLDER[0] / f"case{_SUFFIX.get(name, '.safetensors')}"
    path.write_bytes(data)
    outcomes = []
    ways: Any = (lambda path: load_onnx(path, Choices()),) if name == "onnx" else _WAYS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for way in ways:
            try:
                way(path)
            except InputError as error:
                one_line(error)
                outcomes.append("refused")
            else:
                outcomes.append("read")
    sentinel = _FOLDER[0] / "sentinel"
    if sentinel.exists():
        sentinel.unlink()
        raise AssertionError("code in the file was executed")
    return f"{name} {'read' if 'read' in outcomes else 'refused'}"


_WAYS = (
    read_weights,
    lambda path: read_weights(path, shapes_only=True),
    inspect,
    load_pretrained,
)


# What a hostile pickle calls, and with what; each would leave the sentinel or be noted.
def _calls(sentinel: str) -> list[tuple[str, str, tuple[Any, ...]]]:
    code = f"open({sentinel!r}, 'w')"
    return [
        ("os", "system", (f"touch {sentinel}",)),
        ("posix", "system", (f"touch {sentinel}",)),
        ("nt", "system", (f"touch {sentinel}",)),
        ("subprocess", "Popen", (["touch", sentinel],)),
        ("subprocess", "check_output", (["touch", sentinel],)),
        ("builtins", "eval", (code,)),
        ("builtins", "exec", (code,)),
        ("__builtin__", "eval", (code,)),
        ("builtins", "open", (sentinel, "w")),
        ("io", "open", (sentinel, "w")),
        ("_io", "FileIO", (sentinel, "w")),
        ("builtins", "__import__", ("os",)),
        ("builtins", "getattr", (1, "real")),
        ("runpy", "run_path", (sentinel,)),
        ("importlib", "import_module", ("antigravity",)),
        ("pathlib", "Path.touch", (sentinel,)),
        ("shutil", "copyfile", ("/etc/hostname", sentinel)),
        ("torch.serialization", "load", (sentinel,)),
        ("torch.hub", "load", ("a/b", "c")),
        ("torch._utils", "_rebuild_tensor_v2", (sentinel,)),
        ("torch", "load", (sentinel,)),
        ("torch.jit", "load", (sentinel,)),
        ("numpy", "save", (sentinel, 1)),
        ("numpy.core.multiarray", "scalar", (code,)),
        ("numpy._core.multiarray", "_reconstruct", (code, (0,), b"b")),
        ("argparse", "Namespace", ()),
        ("argparse", "FileType", ("w",)),
        ("collections", "OrderedDict", ()),
        ("collections", "defaultdict", ()),
        ("functools", "partial", (1,)),
        ("operator", "attrgetter", ("system",)),
        ("code", "InteractiveInterpreter", ()),
        ("ctypes", "CDLL", (sentinel,)),
        ("builtins", "bytearray", (2**33,)),
        ("logging.config", "listen", ()),
        ("webbrowser", "open", ("http://127.0.0.1:9/",)),
        ("socket", "create_connection", (("127.0.0.1", 9),)),
    ]


def hostile(rng: random.Random, sentinel: str) -> bytes:
    """A pickle that makes and calls things in one of several ways."""
    out = bytearray(pickle.PROTO + bytes([rng.choice((2, 2, 2, 3, 4, 5))]))
    if rng.random() < 0.5:
        out += b"}" + b"("  # into a dictionary, as a state dict is
    for _ in range(rng.choice((1, 1, 2, 3))):
        module, name, arguments = rng.choice(_calls(sentinel))
        given = pickle.dumps(arguments, 2)[2:-1]
        if rng.random() < 0.3:
            out += pickle.BINUNICODE + struct.pack("<I", 1) + b"k"
        way = rng.randrange(7)
        global_name = f"c{module}\n{name}\n".encode()
        if way == 1:
            global_name = b"".join(
                pickle.SHORT_BINUNICODE + bytes([len(part)]) + part.encode()
                for part in (module, name)
            )
            global_name += pickle.STACK_GLOBAL
        if way <= 2:
            out += global_name + given + pickle.REDUCE
        elif way == 3:
            out += b"(" + b"".join(map(_plain, arguments)) + f"i{module}\n{name}\n".encode()
        elif way == 4:
            out += b"(" + global_name + b"".join(map(_plain, arguments)) + pickle.OBJ
        elif way == 5:
            out += global_name + given + pickle.NEWOBJ
        else:
            out += global_name + given + pickle.REDUCE + given + pickle.BUILD
        if rng.random() < 0.2:
            out += (
                pickle.BINPUT
                + bytes([rng.randrange(4)])
                + pickle.BINGET
                + bytes([rng.randrange(4)])
            )
    if out[2:4] == b"}(":
        out += pickle.SETITEMS
    return bytes(out) + pickle.STOP


def _plain(value: Any) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def random_opcodes(rng: random.Random, sentinel: str) -> bytes:
    """Any opcodes in any order, between calls."""
    out = bytearray(pickle.PROTO + b"\x02")
    for _ in range(rng.randrange(2, 30)):
        if rng.random() < 0.2:
            out += hostile(rng, sentinel)[2:-1]
            continue
        opcode = rng.choice(pickletools.opcodes)
        out += opcode.code.encode("latin-1")
        if opcode.arg is not None:
            out += rng.choice((b"0\n", b"a\n", b"\x01a", b"\x00", b"\x01\0\0\0a", b"os\nsystem\n"))
    return bytes(out) + pickle.STOP


def make_pickle(rng: random.Random) -> Case:
    """A hostile pickle, in torch's zip, in its older format, or bare."""
    sentinel = str(_FOLDER[0] / "sentinel")
    content = (hostile if rng.random() < 0.6 else random_opcodes)(rng, sentinel)
    way = rng.randrange(4)
    if way == 0:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("archive/data.pkl", content)
            file.writestr("archive/version", "3\n")
            file.writestr("archive/byteorder", "little")
            file.writestr("archive/data/0", bytes(40))
        return "torch", out.getvalue()
    magic, protocol, system = (
        pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    if way == 1:
        return "legacy", magic + protocol + system + content + pickle.dumps([], 2)
    if way == 2:
        parts = [magic, protocol, system, content]
        parts[rng.randrange(3)] = content
        return "legacy", b"".join(parts)
    return rng.choice(("legacy", "native", "mindspore", "keras")), content


def targets(folder: Path) -> list[Target]:
    """Of this file; ``folder`` is for files."""
    return [
        Target("weights", make, run, lambda: load(folder)),
        Target("pickles", make_pickle, run, lambda: load(folder)),
    ]
