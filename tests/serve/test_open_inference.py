"""The Open Inference Protocol by plain HTTP: the answers of /predict, a reason for a refusal."""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densenet121.bench.serve import running_server
from densenet121.inference.predictor import Predictor

from helpers.commands import environment, run_command
from helpers.serving import FLAGS, MAX_BYTES, MAX_PICTURES, ask, bomb
from helpers.weights import NAMES, write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from densenet121.serve.bodies import Refusal
from densenet121.serve.tensors import Allowed, parse

MODEL = "/v2/models/densenet40"
SIDE = 16


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture(scope="module")
def port(weights: Path) -> Iterator[int]:
    with running_server(weights, *FLAGS, environment=environment()) as (port, _):
        yield port


@pytest.fixture(scope="module")
def files(image_folder: Path) -> list[Path]:
    return sorted((image_folder / "val").rglob("*.png"))


def image_tensor(count: int, **more: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [count], **more}


def in_binary(request: dict[str, Any], *parts: bytes) -> tuple[bytes, dict[str, str]]:
    """A request in the binary data extension, and its header."""
    head = json.dumps(request).encode()
    return head + b"".join(parts), {"Inference_Header_Content_Length": str(len(head))}


def images_in_binary(images: list[bytes], **more: Any) -> tuple[bytes, dict[str, str]]:
    data = b"".join(struct.pack("<I", len(image)) + image for image in images)
    tensor = image_tensor(len(images), parameters={"binary_data_size": len(data)})
    return in_binary({"inputs": [tensor], **more}, data)


def outputs_of(content: dict[str, Any]) -> dict[str, Any]:
    return {
        one["name"]: np.array(one["data"], dtype=object).reshape(one["shape"])
        for one in content["outputs"]
    }


def test_health_and_metadata_are_those_of_the_protocol(port: int) -> None:
    assert ask(port, None, "/v2/health/live", "GET")[:2] == (200, {"live": True})
    assert ask(port, None, "/v2/health/ready", "GET")[:2] == (200, {"ready": True})
    assert ask(port, None, "/v2", "GET")[1]["extensions"] == ["binary_tensor_data"]
    for path in (MODEL, f"{MODEL}/versions/1"):
        status, content, _ = ask(port, None, path, "GET")
        assert (status, content["name"], content["versions"]) == (200, "densenet40", ["1"])
        assert content["inputs"] == [
            {"name": "image", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "FP32", "shape": [-1, 3, SIDE, SIDE]},
        ]
        assert [one["name"] for one in content["outputs"]] == ["logits", "probabilities", "answer"]
        assert content["parameters"] == {"class_names": list(NAMES)}
        assert ask(port, None, f"{path}/ready", "GET")[0] == 200


def test_images_have_the_logits_and_answers_of_predictor(
    port: int, weights: Path, files: list[Path]
) -> None:
    predictor = Predictor(weights, amp="fp32", batch_size=1)
    data = [file.read_bytes() for file in files[:3]]
    body, headers = images_in_binary(data, id="seven", parameters={"top_k": 2})
    status, content, _ = ask(port, body, f"{MODEL}/infer", **headers)
    assert status == 200, content
    assert (content["model_name"], content["model_version"], content["id"]) == (
        "densenet40", "1", "seven",
    )  # fmt: skip
    found = outputs_of(content)
    pixels = torch.from_numpy(np.stack([predictor.prepare(one) for one in data]))
    np.testing.assert_allclose(found["logits"].astype(float), predictor.logits(pixels), rtol=1e-5)
    for text, expected in zip(found["answer"], predictor(data, top_k=2), strict=True):
        answer = json.loads(text)
        assert [one["class"] for one in answer["top"]] == list(expected.classes)
    _, own, _ = ask(port, data[0], "/predict?top_k=3")
    top = own["predictions"][0]["top"]
    shares = dict(zip(NAMES, found["probabilities"][0], strict=True))
    for one in top:
        assert shares[one["class"]] == pytest.approx(one["probability"], abs=1e-6)


def test_tensors_have_the_logits_of_their_images(
    port: int, weights: Path, files: list[Path]
) -> None:
    predictor = Predictor(weights, amp="fp32", batch_size=1)
    pixels = torch.from_numpy(np.stack([predictor.prepare(file) for file in files[:2]]))
    normalised = predictor.classifier.preprocessing.normalise(pixels).contiguous().numpy()
    expected = predictor.logits(pixels)
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [2, 3, SIDE, SIDE]}
    raw = normalised.astype("<f4").tobytes()
    binary = in_binary({"inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}]}, raw)
    flat = json.dumps({"inputs": [tensor | {"data": normalised.reshape(-1).tolist()}]}).encode()
    nested = json.dumps({"inputs": [tensor | {"data": normalised.tolist()}]}).encode()
    for body, headers in (binary, (flat, {}), (nested, {})):
        status, content, _ = ask(port, body, f"{MODEL}/versions/1/infer", **headers)
        assert status == 200, content
        np.testing.assert_allclose(
            outputs_of(content)["logits"].astype(float), expected, rtol=1e-4, atol=1e-3
        )


def test_base64_in_json_is_the_same_as_bytes(port: int, files: list[Path]) -> None:
    data = files[0].read_bytes()
    texts = [base64.b64encode(data).decode()]
    tensor = image_tensor(1, data=texts, parameters={"content_type": "base64"})
    answers = [
        ask(port, body, f"{MODEL}/infer", **headers)
        for body, headers in (
            (json.dumps({"inputs": [tensor]}).encode(), {}),
            images_in_binary([data]),
        )
    ]
    assert answers[0][:2] == answers[1][:2]


def test_outputs_come_as_bytes_where_they_are_asked_for(port: int, files: list[Path]) -> None:
    import http.client

    asked = [
        {"name": "answer", "parameters": {"binary_data": True}},
        {"name": "logits", "parameters": {"binary_data": True}},
        {"name": "probabilities"},
    ]
    body, headers = images_in_binary([files[0].read_bytes()], outputs=asked)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", f"{MODEL}/infer", body, named)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["Inference-Header-Content-Length"])
    content, rest = json.loads(data[:length]), data[length:]
    assert [one["name"] for one in content["outputs"]] == ["answer", "logits", "probabilities"]
    first, second, third = content["outputs"]
    size = first["parameters"]["binary_data_size"]
    (inside,) = struct.unpack("<I", rest[:4])
    assert size == 4 + inside
    assert json.loads(rest[4:size])["top"]
    assert second["parameters"]["binary_data_size"] == len(rest) - size == 4 * len(NAMES)
    logits = np.frombuffer(rest[size:], "<f4")
    shares = torch.tensor(logits.copy()).double().softmax(0).numpy()
    np.testing.assert_allclose(third["data"], shares, rtol=1e-5)


def bad(image: bytes) -> list[tuple[int, str, dict[str, Any], list[bytes]]]:
    """Status, part of the reason, the JSON, the bytes after it."""
    element = struct.pack("<I", len(image)) + image
    size = {"binary_data_size": len(element)}
    pixels = {"name": "pixels", "datatype": "FP32", "shape": [1, 3, SIDE, SIDE]}
    numbers = [0.0] * (3 * SIDE * SIDE)

    def of(tensor: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"inputs": [tensor], **more}

    good = image_tensor(1, parameters=size)
    many = element * (MAX_PICTURES + 1)
    return [
        (400, "inputs must be one tensor", {}, []),
        (400, "inputs must be one tensor", {"inputs": [good, good]}, [element]),
        (400, "there is no input", of(good | {"name": "x"}), [element]),
        (400, "must be BYTES", of(good | {"datatype": "UINT8"}), [element]),
        (400, "shape of image must be", of(good | {"shape": [1, 1]}), [element]),
        (400, "shape of image must be", of(good | {"shape": [True]}), [element]),
        (400, "either data or", of(image_tensor(1)), []),
        (400, "but 0 bytes follow", of(good), []),
        (400, "bytes after its last", of(image_tensor(1, parameters={
            "binary_data_size": len(element) + 1})), [element, b"x"]),
        (400, "truncated", of(image_tensor(2, parameters=size)), [element]),
        (413, "more than 4 images", of(image_tensor(MAX_PICTURES + 1, parameters={
            "binary_data_size": len(many)})), [many]),
        (400, "content_type", of(image_tensor(1, data=["aGVsbG8="])), []),
        (400, "is not base64", of(image_tensor(1, data=["?"], parameters={
            "content_type": "base64"})), []),
        (400, "a list of 1 texts", of(image_tensor(1, data="x", parameters={
            "content_type": "base64"})), []),
        (400, "there is no output", of(good, outputs=[{"name": "x"}]), [element]),
        (400, "binary_data must be", of(good, outputs=[{"name": "logits", "parameters": {
            "binary_data": 1}}]), [element]),
        (400, '"classification"', of(good, outputs=[{"name": "logits", "parameters": {
            "classification": 3}}]), [element]),
        (400, '"timeout"', of(good, parameters={"timeout": 3}), [element]),
        (400, '"priority"', of(good, priority=3), [element]),
        (400, "top_k must be", of(good, parameters={"top_k": 0}), [element]),
        (400, "id must be text", of(good, id=3), [element]),
        (422, "must be normalised", of(pixels | {"data": [255.0] * len(numbers)}), []),
        (422, "must be normalised", of(pixels | {"data": [1e30] * len(numbers)}), []),
        (422, "must be normalised", of(pixels | {"data": [float("nan")] * len(numbers)}), []),
        (400, "numbers, flat or nested", of(pixels | {"data": ["0"] * len(numbers)}), []),
        (400, "numbers, flat or nested", of(pixels | {"data": [[0], [0, 1]]}), []),
        (400, "is nested as [1, 16, 16, 3], but its shape is [1, 3, 16, 16]", of(pixels | {
            "data": np.zeros((1, SIDE, SIDE, 3)).tolist()}), []),
        (400, "is nested as [3, 16, 16]", of(pixels | {
            "data": np.zeros((3, SIDE, SIDE)).tolist()}), []),
        (400, "has 1 numbers", of(pixels | {"data": [0.0]}), []),
        (400, "shape of pixels", of(pixels | {"shape": [1, 3, 8, 8], "data": [0.0] * 192}), []),
    ]  # fmt: skip


def test_every_bad_request_gets_a_4xx_with_its_reason(port: int, files: list[Path]) -> None:
    image = files[0].read_bytes()
    for status, reason, request, parts in bad(image):
        body, headers = in_binary(request, *parts)
        found, content, _ = ask(port, body, f"{MODEL}/infer", **headers)
        assert (found, list(content)) == (status, ["error"]), (reason, content)
        assert reason in content["error"], content
    assert ask(port, images_in_binary([image])[0], f"{MODEL}/infer")[0] == 400  # no header


def pixels_of(**more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 1, 1, 1], **more}]}


ONE_PIXEL = Allowed(("logits",), 1, (1, 1), (-4.0,), (4.0,))


@pytest.mark.parametrize("data", [b"a", b"abcde"])
def test_bytes_that_are_no_whole_number_of_values_are_refused(data: bytes) -> None:
    body, headers = in_binary(pixels_of(parameters={"binary_data_size": len(data)}), data)
    named = {"inference-header-content-length": next(iter(headers.values()))}
    with pytest.raises(Refusal, match=f"pixels has {len(data)} bytes, but its shape") as found:
        parse(body, named, ONE_PIXEL)
    assert found.value.status == 400


def test_a_value_beyond_float32_is_refused_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(Refusal, match="must be normalised") as found:
        parse(json.dumps(pixels_of(data=[1e300])).encode(), {}, ONE_PIXEL)
    assert found.value.status == 422 and capsys.readouterr().err == ""


def test_images_have_the_limits_and_refusals_of_predict(port: int, files: list[Path]) -> None:
    image = files[0].read_bytes()
    for status, reason, data in (
        (415, "image 1: not an image of a known format", b"no image at all"),
        (422, "truncated", image[:200]),
        (413, "the limit is 100000", bomb(30_000, 30_000)),
        (400, "image 1: the file is empty", b""),
        (413, f"larger than {MAX_BYTES}", bytes(MAX_BYTES)),
    ):
        body, headers = images_in_binary([data])
        found, content, _ = ask(port, body, f"{MODEL}/infer", **headers)
        assert (found, reason in content["error"]) == (status, True), content
    body, headers = images_in_binary([image])
    packed = ask(port, body, f"{MODEL}/infer", **headers, content_encoding="gzip")
    assert packed[0] == 415
    for path in ("/v2/models/other/infer", f"{MODEL}/versions/2/infer"):
        status, content, _ = ask(port, body, path, **headers)
        assert (status, list(content)) == (404, ["error"])
    assert ask(port, None, "/v2/models/other", "GET")[0] == 404
    assert ask(port, body, f"{MODEL}/infer", **headers)[0] == 200


def test_several_views_take_images_only(weights: Path, files: list[Path]) -> None:
    flags = [*FLAGS, "--tta", "flip", "--model_name", "flipped"]
    with running_server(weights, *flags, environment=environment()) as (port, _):
        _, content, _ = ask(port, None, "/v2/models/flipped", "GET")
        assert [one["name"] for one in content["inputs"]] == ["image"]
        body, headers = images_in_binary([files[0].read_bytes()])
        assert ask(port, body, "/v2/models/flipped/infer", **headers)[0] == 200
        tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, 3, SIDE, SIDE], "data": [0.0]}
        body = json.dumps({"inputs": [tensor]}).encode()
        status, content, _ = ask(port, body, "/v2/models/flipped/infer")
        assert status == 400
        assert "this network takes no tensors" in content["error"]


@given(st.data())
@settings(max_examples=300)
def test_any_body_is_read_or_refused(data: st.DataObject) -> None:
    allowed = Allowed(("logits",), 4, (SIDE, SIDE), (-4.0,) * 3, (4.0,) * 3)
    body, headers = images_in_binary([b"abc", b"defg"])
    length = headers["Inference_Header_Content_Length"]
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(0, 4))):
        changed[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    given_length = data.draw(st.sampled_from([length, "0", "-1", "9" * 30, "x", "\u0663"]))
    try:
        found = parse(
            bytes(changed[:cut]), {"inference-header-content-length": given_length}, allowed
        )
    except Refusal as error:
        assert error.status in (400, 413, 415, 422)
        assert "\n" not in error.reason
    else:
        assert len(found.items) == 2


@pytest.mark.parametrize("value", ["[]", "{}", '""', "0", "[[]]"])
def test_more_values_than_any_request_has_are_refused_before_they_are_read(value: str) -> None:
    """Reading them, nobody else would have an answer."""
    allowed = Allowed(("logits",), 4, (SIDE, SIDE), (-4.0,) * 3, (4.0,) * 3)
    body = b'{"inputs":[' + b",".join([value.encode()] * (2**22 // len(value))) + b"]}"
    with pytest.raises(Refusal, match="the JSON of the request has more than") as refused:
        parse(body, {}, allowed)
    assert refused.value.status == 413


@pytest.mark.parametrize("nested", [False, True])
def test_the_largest_request_of_numbers_is_read(nested: bool) -> None:
    allowed = Allowed(("logits",), 32, (64, 64), (-4.0,) * 3, (4.0,) * 3)
    numbers = np.zeros((32, 3, 64, 64))
    data = numbers.tolist() if nested else numbers.reshape(-1).tolist()
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [*numbers.shape], "data": data}
    assert len(parse(json.dumps({"inputs": [tensor]}).encode(), {}, allowed).items) == 32


def test_a_name_that_cannot_be_in_an_address_is_refused(weights: Path) -> None:
    done = run_command("serve", weights, "--model_name", "a/b")
    assert done.returncode == 2
    assert "--model_name must be letters" in done.stderr
