"""Inference engines to compare with: ONNX Runtime and OpenVINO on torchvision's network."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def engine_step(
    side: str, model: nn.Module, images: Tensor, *, bf16: bool, threads: int
) -> Callable[[], None]:
    """One inference of ``images``, ``(N, 3, H, W)``, in the engine; with the model's weights."""
    images = images.contiguous()
    if side == "openvino":
        return _openvino(model, images, bf16=bf16, threads=threads)
    return _onnxruntime(model, images, threads=threads)


def _onnxruntime(model: nn.Module, images: Tensor, *, threads: int) -> Callable[[], None]:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    assert program is not None
    file = program.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images.numpy()}

    def run() -> None:
        session.run(None, feed)

    return run


def _openvino(model: nn.Module, images: Tensor, *, bf16: bool, threads: int) -> Callable[[], None]:
    openvino: Any = importlib.import_module("openvino")
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    converted = openvino.convert_model(model, example_input=images)
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    array = images.numpy()

    def run() -> None:
        compiled(array)

    return run
