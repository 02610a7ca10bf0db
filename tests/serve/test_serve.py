"""The server: the answers of predict, a reason for every refusal, no accepted request lost."""

import asyncio
import base64
import contextlib
import http.client
import io
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densenet121.bench.serve import running_server
from densenet121.inference.predictor import Predictor

from helpers.commands import environment, run_command
from helpers.serving import FLAGS, FORM, ask, bad_requests, form
from helpers.weights import write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


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


def test_a_lone_image_has_the_answer_of_predictor_bit_for_bit(
    port: int, weights: Path, files: list[Path]
) -> None:
    predictor = Predictor(weights, amp="fp32")
    for file in files[:5]:
        (expected,) = predictor.predict([file], top_k=3)
        status, content, _ = ask(port, file.read_bytes(), "/predict?top_k=3")
        (found,) = content["predictions"]
        assert status == 200
        assert [one["class"] for one in found["top"]] == list(expected.classes)
        assert [one["probability"] for one in found["top"]] == list(expected.probabilities)
        assert found["predicted"] == expected.classes[0] and found["abstained"] is False


@pytest.mark.parametrize("tta", ["flip", "ten_crop"])
def test_several_views_give_the_answers_of_predictor(
    weights: Path, files: list[Path], tta: str
) -> None:
    predictor = Predictor(weights, amp="fp32", tta=tta)
    flags = [*FLAGS, "--tta", tta]
    with running_server(weights, *flags, environment=environment()) as (port, _):
        for file in files[:2]:
            (expected,) = predictor.predict([file], top_k=3)
            _, content, _ = ask(port, file.read_bytes(), "/predict?top_k=3&cam=1")
            found = [one["probability"] for one in content["predictions"][0]["top"]]
            assert found == list(expected.probabilities)


def test_images_of_many_clients_have_the_answers_of_predictor(
    port: int, weights: Path, files: list[Path]
) -> None:
    expected = Predictor(weights, amp="fp32").predict(files, top_k=3)
    with ThreadPoolExecutor(16) as clients:
        found = list(clients.map(lambda file: ask(port, file.read_bytes()), files * 4))
    for (status, content, _), said in zip(found, expected * 4, strict=True):
        (one,) = content["predictions"]
        assert status == 200 and one["top"][0]["class"] == said.classes[0]
        shares = [top["probability"] for top in one["top"]]
        assert np.allclose(shares, said.probabilities, atol=1e-5)


def test_a_form_of_images_is_answered_in_its_order_with_names(
    port: int, weights: Path, files: list[Path]
) -> None:
    parts = [(f.name, f.read_bytes()) for f in (files[0], files[9], files[20])]
    status, content, _ = ask(port, form([*parts, (None, b"a field")]), **FORM)
    assert status == 200
    assert [one["name"] for one in content["predictions"]] == [name for name, _ in parts]
    for one, (_, data) in zip(content["predictions"], parts, strict=True):
        assert one["predicted"] == Predictor(weights, amp="fp32").predict([data])[0].classes[0]


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("filename*=UTF-8''%e8%8b%b9.png", "\u82f9.png"),
        ("filename=\"a.png\"; filename*=utf-8'en'%E2%82%AC%20rates.png", "\u20ac rates.png"),
        ("filename*=UTF-8''%e8%8b%b9.png; filename=a.png", "\u82f9.png"),
        ("filename*=iso-8859-1''caf%e9.png", "caf\xe9.png"),
        ("filename*=UTF-8''%ff.png", "\ufffd.png"),
        ("filename=\"; filename*=UTF-8''x\"", "; filename*=UTF-8''x"),
    ],
)
def test_the_name_of_a_file_may_be_given_in_any_script(
    disposition: str, name: str, port: int, files: list[Path]
) -> None:
    head = f'--xx\r\nContent-Disposition: form-data; name="p"; {disposition}\r\n\r\n'.encode()
    body = head + files[0].read_bytes() + b"\r\n--xx--\r\n"
    status, content, _ = ask(port, body, **FORM)
    assert (status, content["predictions"][0]["name"]) == (200, name)


def test_a_name_in_another_character_set_is_refused(port: int, files: list[Path]) -> None:
    head = b"--xx\r\nContent-Disposition: form-data; name=p; filename*=utf-7''a.png\r\n\r\n"
    body = head + files[0].read_bytes() + b"\r\n--xx--\r\n"
    status, content, _ = ask(port, body, **FORM)
    assert (status, content["error"]) == (400, "filename* must be UTF-8 or ISO-8859-1, got utf-7")


def test_a_map_is_an_image_of_what_predict_draws(port: int, files: list[Path]) -> None:
    _, content, _ = ask(port, files[0].read_bytes(), "/predict?cam=true")
    prefix, _, data = content["predictions"][0]["cam"].partition(",")
    assert prefix == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.format, image.size) == ("PNG", (256, 256))


def test_every_bad_body_gets_a_4xx_with_its_reason(port: int, files: list[Path]) -> None:
    for status, reason, body, headers in bad_requests(files[0].read_bytes()):
        found, content, _ = ask(port, body, **headers)
        assert (found, list(content)) == (status, ["error"]), (reason, content)
        assert reason in content["error"], content
    assert ask(port, files[0].read_bytes())[0] == 200


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(port: int) -> None:
    chunks = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = exchange(port, [head, *[chunks] * 8, b"0\r\n\r\n"])
    assert answer.startswith(b"HTTP/1.1 413") and b"connection: close" in answer.lower()


def test_a_body_far_beyond_the_limit_is_refused_with_its_reason_too(port: int) -> None:
    length = 2**26 + 2**21
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length
    answer = exchange(port, [head, *[bytes(2**20)] * (length // 2**20)])
    assert answer.startswith(b"HTTP/1.1 413") and b"body is larger than" in answer


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("top_k=0", "top_k"),
        ("top_k=many", "top_k"),
        ("topk=3", "topk: unknown in the query; it may have top_k, coverage, cam"),
        ("top_k=2&top_k=3", "top_k: is given more than once"),
        ("coverage=2", "coverage"),
        ("coverage=0.9", "calibrate"),
        ("cam=perhaps", "cam"),
    ],
)
def test_a_wrong_query_is_named(port: int, files: list[Path], query: str, reason: str) -> None:
    status, content, _ = ask(port, files[0].read_bytes(), f"/predict?{query}")
    assert status == 400 and reason in content["error"]


def exchange(port: int, pieces: list[bytes], pause: float = 0.0) -> bytes:
    """What the server says to these pieces until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        said = b""
        with contextlib.suppress(ConnectionError):  # it closes while this is still sending
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                said += part
        return said


@pytest.mark.parametrize(
    ("pieces", "status"),
    [
        ([b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n", b"abc"], 408),
        ([b"POST /predict HT"], 408),
        ([b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"], 408),
        ([b""], 408),
        ([b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5, *[b"a: " + b"b" * 9000 + b"\r\n"] * 20], 431),
        ([b"\x16\x03\x01 this is TLS\r\n\r\n"], 400),
        ([b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"], 400),
    ],
)
def test_slow_endless_and_foreign_senders_are_told_and_closed(
    port: int, pieces: list[bytes], status: int
) -> None:
    start = time.monotonic()
    answer = exchange(port, pieces, pause=0.01)
    statuses = re.findall(rb"HTTP/1.1 (\d+)", answer)
    assert statuses and int(statuses[-1]) == status, answer
    assert time.monotonic() - start < 8


def test_a_drip_of_bytes_does_not_hold_a_connection(port: int) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n"
    start = time.monotonic()
    exchange(port, [head, *[b"x"] * 100], pause=0.1)
    assert time.monotonic() - start < 8


def test_where_the_queue_is_full_a_client_is_told_when_to_come_again(
    weights: Path, files: list[Path]
) -> None:
    flags = [*FLAGS, "--queue", 1, "--max_pictures", 1]
    with running_server(weights, *flags, environment=environment()) as (port, _):
        with ThreadPoolExecutor(8) as clients:
            data = files[0].read_bytes()
            found = list(clients.map(lambda _: ask(port, data, "/predict?cam=1"), range(64)))
        assert {status for status, _, _ in found} == {200, 503}
        for status, content, headers in found:
            if status == 503:
                assert "waiting" in content["error"] and int(headers["retry-after"]) >= 1
        assert ask(port, data)[0] == 200


def test_sigterm_under_load_loses_no_accepted_request(weights: Path, files: list[Path]) -> None:
    """Clients whose every request is answered, or whose connection was refused from the start."""
    bodies = [file.read_bytes() for file in files]
    counts = {"answered": 0, "refused": 0}

    async def client(number: int, port: int) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                counts["refused"] += 1
                return
            closing = False
            while not closing:
                body = bodies[(number + counts["answered"]) % len(bodies)]
                writer.write(
                    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body)
                )
                head = (await reader.readuntil(b"\r\n\r\n")).lower()  # fails if a request is lost
                await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head)[0]))
                assert head.startswith(b"http/1.1 200"), head
                counts["answered"] += 1
                closing = b"connection: close" in head
            writer.close()

    async def run(port: int, process: Any) -> None:
        clients = [asyncio.create_task(client(number, port)) for number in range(16)]
        await asyncio.sleep(1)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            await asyncio.gather(*clients)

    with running_server(weights, *FLAGS, environment=environment()) as (port, process):
        asyncio.run(run(port, process))
        assert process.wait(timeout=20) == 0
        assert process.stderr is not None and process.stderr.read() == ""
    assert counts["refused"] == 16 and counts["answered"] > 16


def test_health_metrics_and_descriptions_are_there(port: int, files: list[Path]) -> None:
    for path in ("/healthz", "/readyz", "/model", "/metrics", "/", "/docs", "/openapi.json"):
        assert ask(port, None, path, "GET")[0] == 200, path
    before = ask(port, None, "/metrics", "GET")[1]
    ask(port, form([("a", files[0].read_bytes()), ("b", files[1].read_bytes())]), **FORM)
    after = ask(port, None, "/metrics", "GET")[1]

    def value(text: str, name: str) -> float:
        return float(re.findall(rf"^{re.escape(name)} (.*)$", text, re.MULTILINE)[0])

    assert value(after, "densenet121_pictures_total") - value(
        before, "densenet121_pictures_total"
    ) == pytest.approx(2)
    assert value(after, "densenet121_waiting_pictures") == 0
    assert value(after, "densenet121_body_bytes") == 0
    assert value(after, 'densenet121_answers_total{status="200"}') >= 7


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/model", "/v2", "/v2/health/ready"])
def test_head_has_the_status_and_headers_of_get_without_its_body(port: int, path: str) -> None:
    status, _, headers = ask(port, None, path, "GET")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
        for _ in range(2):  # the connection stays usable
            client.request("HEAD", path)
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (status, b"")
            for name in ("content-type", "content-length", "content-security-policy"):
                assert answer.headers[name] == headers[name]
        client.request("HEAD", "/predict")
        answer = client.getresponse()
        assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_the_document_has_what_every_operation_may_answer(port: int) -> None:
    """`make test-schema` found refusals that it did not have, and a 422 that is never given."""
    document = ask(port, None, "/openapi.json", "GET")[1]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            answers = operation["responses"]
            assert set(answers) == {"200", "4XX", "503"}, path
            assert "error" in answers["4XX"]["content"]["application/json"]["schema"]["required"]
    metrics = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert list(metrics) == ["text/plain"]


def test_no_page_asks_an_outside_host(port: int) -> None:
    for path in ("/", "/docs"):
        text = ask(port, None, path, "GET")[1]
        assert not re.findall(r"(?:src|href|url)\s*[=(:]\s*[\"']?(?:https?:)?//", text), path
    policy = ask(port, None, "/", "GET")[2]["content-security-policy"]
    assert "default-src 'none'" in policy and "http" not in policy
    bundle = ask(port, None, "/static-offline-docs/swagger-ui-bundle.js", "GET")
    assert bundle[0] == 200


def test_a_wrong_call_is_one_line(weights: Path, tmp_path: Path, port: int) -> None:
    for arguments, status, word in (
        ([tmp_path / "none.safetensors"], 1, "none.safetensors"),
        (
            [weights, "--port", port],
            2,
            "cannot listen (Address already in use); pass another --port",
        ),
        ([weights, "--port", 0, "--cam_layer", "nowhere"], 1, "nowhere"),
        ([weights, "--queue", 3], 2, "--max_pictures"),
    ):
        run = run_command("serve", *arguments)
        assert (run.returncode, run.stdout) == (status, "")
        assert run.stderr.count("\n") == 1 and word in run.stderr
