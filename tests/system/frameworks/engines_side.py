"""The exported network in another engine: ``logits.npy`` of ``images.npy``, image by image.

openvino|openvino_int8|executorch|litert|coreml|ncnn FOLDER   with model.onnx, int8.onnx, model.pt2

The lines of each engine are those of docs/guides/export.md.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np


def openvino(folder, images, file="model.onnx"):
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    network = openvino.Core().compile_model(folder / file, "CPU", exact)
    return network(images)["logits"]


def openvino_int8(folder, images):
    return openvino(folder, images, "int8.onnx")


def executorch(folder, images):
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    program = torch.export.load(folder / "model.pt2")
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    (folder / "model.pte").write_bytes(lowered.to_executorch().buffer)
    network = Runtime.get().load_program(folder / "model.pte").load_method("forward")
    return network.execute([torch.from_numpy(images)])[0].numpy()


def litert(folder, images):
    import litert_torch
    import torch
    from ai_edge_litert.interpreter import Interpreter

    network = torch.export.load(folder / "model.pt2").module()
    litert_torch.convert(network, (torch.from_numpy(images[:1]),)).export(folder / "model.tflite")
    network = Interpreter(str(folder / "model.tflite")).get_signature_runner()
    (name,) = network.get_input_details()
    (output,) = network.get_output_details()
    return np.concatenate([network(**{name: image[None]})[output] for image in images])


def coreml(folder, images):
    import coremltools
    import torch

    program = torch.export.load(folder / "model.pt2").run_decompositions({})
    network = coremltools.convert(
        program,
        inputs=[coremltools.TensorType(name="images", shape=images[:1].shape)],
        outputs=[coremltools.TensorType(name="logits")],
        compute_precision=coremltools.precision.FLOAT32,
        minimum_deployment_target=coremltools.target.iOS16,
    )
    network.save(folder / "model.mlpackage")
    known = network.get_spec().description
    assert tuple(known.input[0].type.multiArrayType.shape) == images[:1].shape
    assert [known.input[0].name, known.output[0].name] == ["images", "logits"]
    return None  # it runs on macOS alone


def ncnn(folder, images):
    import ncnn

    shape = ",".join(map(str, images[:1].shape))
    command = ["pnnx", "model.onnx", f"inputshape=[{shape}]", "fp16=0"]
    pnnx = Path(sys.executable).with_name("pnnx")
    subprocess.run([pnnx, *command[1:]], cwd=folder, check=True, capture_output=True)
    network = ncnn.Net()
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = False
    network.opt.use_fp16_arithmetic = network.opt.use_bf16_storage = False
    network.load_param(str(folder / "model.ncnn.param"))
    network.load_model(str(folder / "model.ncnn.bin"))
    logits = []
    for image in images:
        extractor = network.create_extractor()
        extractor.input("in0", ncnn.Mat(image))
        logits.append(np.array(extractor.extract("out0")[1]))
    return np.stack(logits)


engine, place = sys.argv[1], Path(sys.argv[2])
found = globals()[engine](place, np.load(place / "images.npy"))
if found is not None:
    np.save(place / "logits.npy", found)
