"""NVIDIA's client of the Open Inference Protocol, for tests/system/test_frameworks_serve.py.

PORT MODEL PIXELS.npy OUTPUT FILES   asks for the images of FILES and for the tensors in PIXELS
"""

import json
import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

port, name, tensors, output, *files = sys.argv[1:]
client = triton.InferenceServerClient(f"127.0.0.1:{port}")
told = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model_ready": client.is_model_ready(name) and client.is_model_ready(name, "1"),
    "other_ready": client.is_model_ready("other"),
    "server": client.get_server_metadata(),
    "model": client.get_model_metadata(name),
}
found = {}

images = np.array([Path(file).read_bytes() for file in files], dtype=object)
by_bytes = triton.InferInput("image", [len(files)], "BYTES")
by_bytes.set_data_from_numpy(images)  # in binary
result = client.infer(name, [by_bytes], request_id="seven", parameters={"top_k": 2})
told["id"] = result.get_response()["id"]
found["images"] = result.as_numpy("logits")
found["images_probabilities"] = result.as_numpy("probabilities")
told["answers"] = [json.loads(text) for text in result.as_numpy("answer")]

pixels = np.load(tensors)
for binary in (True, False):
    by_tensor = triton.InferInput("pixels", list(pixels.shape), "FP32")
    by_tensor.set_data_from_numpy(pixels, binary_data=binary)
    wanted = [triton.InferRequestedOutput("logits", binary_data=binary)]
    found[f"pixels_{binary}"] = client.infer(
        name, [by_tensor], outputs=wanted, model_version="1"
    ).as_numpy("logits")

waiting = [client.async_infer(name, [by_bytes]) for _ in range(4)]
found["together"] = np.stack([one.get_result().as_numpy("logits") for one in waiting])

told["refused"] = []
bad = triton.InferInput("image", [1], "BYTES")
bad.set_data_from_numpy(np.array([b"no image"], dtype=object))
for arguments in (
    {"inputs": [bad]},
    {"inputs": [by_bytes], "model_version": "2"},
    {"inputs": [by_bytes], "outputs": [triton.InferRequestedOutput("logits", class_count=3)]},
    {"inputs": [by_bytes], "request_compression_algorithm": "gzip"},
):
    try:
        client.infer(name, **arguments)
    except InferenceServerException as error:
        told["refused"].append([error.status(), error.message()])
np.savez(output + ".npz", **found)
Path(output + ".json").write_text(json.dumps(told))
