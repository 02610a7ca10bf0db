"""The options of a request are its own: none is ignored, and none reaches the images of others."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from densenet121.bench.serve import running_server
from densenet121.inference.predictor import Predictor
from densenet121.tasks import AnswerOptions
from densenet121.tasks.multi_label.calibration import Calibration

from helpers.commands import environment, run_command
from helpers.serving import FLAGS, ask, failing
from helpers.weights import NAMES, write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from densenet121.serve.batches import Batcher, Reply

CALIBRATION = Calibration((1.0, 1.0, 1.0), (), "", {})
NOT_HERE = "{} is for one class per image, not for multilabel; omit it"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    return write_weights(path, task="multilabel", calibration=CALIBRATION)


@pytest.fixture(scope="module")
def port(weights: Path) -> Iterator[int]:
    with running_server(weights, *FLAGS, environment=environment()) as (port, _):
        yield port


@pytest.fixture(scope="module")
def image(image_folder: Path) -> bytes:
    return min((image_folder / "val").rglob("*.png")).read_bytes()


@pytest.mark.parametrize(("query", "name"), [("coverage=0.9", "coverage"), ("top_k=2", "top_k")])
def test_an_option_for_one_class_per_image_is_refused_for_several_labels(
    port: int, image: bytes, query: str, name: str
) -> None:
    status, content, _ = ask(port, image, f"/predict?{query}")
    assert (status, content) == (400, {"error": NOT_HERE.format(name)})


def test_it_is_refused_by_the_open_inference_protocol_too(port: int, image: bytes) -> None:
    element = len(image).to_bytes(4, "little") + image
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
    request = {
        "inputs": [tensor | {"parameters": {"binary_data_size": len(element)}}],
        "parameters": {"top_k": 2},
    }
    head = json.dumps(request).encode()
    path = "/v2/models/densenet40/infer"
    named = {"inference_header_content_length": str(len(head))}
    status, content, _ = ask(port, head + element, path, **named)
    assert (status, content) == (400, {"error": NOT_HERE.format("top_k")})


def test_refused_options_do_not_reach_the_clients_beside_them(port: int, image: bytes) -> None:
    queries = ["/predict", "/predict?coverage=0.9"] * 24
    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(lambda query: ask(port, image, query)[0], queries))
    assert found == [200, 400] * 24


def test_predict_and_the_start_of_serve_refuse_it_in_one_line(
    weights: Path, image_folder: Path, tmp_path: Path
) -> None:
    line = "densenet121: --top_k is for one class per image, not for multilabel; omit it\n"
    flags = ["--pretrained", weights, "--top_k", 2, "--cam", tmp_path / "maps"]
    done = run_command("predict", image_folder / "val", *flags)
    assert (done.stdout, done.stderr) == ("", line) and not (tmp_path / "maps").exists()
    done = run_command("serve", weights, "--top_k", 2, "--port", 0)
    assert (done.stdout, done.stderr) == ("", line)


def test_a_fault_of_one_option_in_a_batch_leaves_the_others_their_answers(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "w.safetensors", class_names=NAMES)
    task = failing(lambda _, options: options.top_k == 1, ZeroDivisionError("this option"))
    predictor = Predictor(path, amp="fp32", batch_size=64, task=task)
    pixels = np.zeros((*predictor.pixels_size, 3), np.uint8)

    async def ask_all() -> list[Reply | BaseException]:
        batcher = Batcher(predictor, 1)
        tops = [2, 1, 3] * 8
        waiting = [batcher.submit(pixels, AnswerOptions(top_k)) for top_k in tops]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        batcher.close()
        return list(found)

    found = asyncio.run(ask_all())
    for reply, top_k in zip(found, [2, 1, 3] * 8, strict=True):
        if top_k == 1:
            assert isinstance(reply, ZeroDivisionError)
        else:
            assert isinstance(reply, Reply) and len(reply.answer.to_json()["top"]) == top_k
