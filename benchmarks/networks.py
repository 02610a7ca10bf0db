"""The networks of other libraries, in a process of their own: ``python networks.py JSON``.

Answers as ``densenet121.bench.worker`` does; run by ``densenet121 bench --against ...``.
"""

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from densenet121.bench.worker import serve, step

from engines import engine_step

ENGINES = ("onnxruntime", "openvino")


def main() -> None:
    """Serve one side."""
    spec = json.loads(sys.argv[1])
    side, net = spec["side"], spec["net"]
    library = importlib.import_module("timm" if side == "timm" else "torchvision")
    name = f"{library.__name__} {library.__version__}"
    if side in ENGINES:
        name = f"{side} {importlib.import_module(side).__version__} on {name}"

    def make_model() -> nn.Module:
        model: nn.Module
        if side == "timm":
            model = library.create_model(net, num_classes=1000)
        else:
            model = getattr(library.models, net)()
        return model

    serve(spec, make_model, lambda _: name, _engine if side in ENGINES else step)


def _engine(spec: dict[str, Any], model: nn.Module) -> Callable[[], None]:
    images = torch.randn(spec["batch_size"], 3, *spec["size"])
    bf16 = spec["amp"] == "bf16"
    return engine_step(spec["side"], model.eval(), images, bf16=bf16, threads=spec["threads"])


if __name__ == "__main__":
    main()
