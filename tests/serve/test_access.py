"""A token and TLS for servers that others can reach."""

import base64
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from densenet121.bench.serve import running_server
from densenet121.config import ServeConfig
from densenet121.serve.access import check_tls, read_token
from densenet121.utils.errors import InputError, UsageError

from helpers.commands import environment, run_command
from helpers.serving import FLAGS
from helpers.weights import write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

TOKEN = "0123456789abcdef-token"


def certificate(folder: Path, name: str = "server") -> tuple[Path, Path]:
    """A certificate of its own for localhost, and its key."""
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    where = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command.split(), *where, "-out", pem, "-keyout", key], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("no openssl here")
    return pem, key


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture(scope="module")
def server(
    weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, ssl.SSLContext]]:
    folder = tmp_path_factory.mktemp("access")
    pem, key = certificate(folder)
    (folder / "token").write_text(TOKEN + "\n")
    flags = [*FLAGS, "--token_file", folder / "token", "--tls_certificate", pem, "--tls_key", key]
    flags += ["--root_path", "/cats"]
    trusted = ssl.create_default_context(cafile=str(pem))
    with running_server(weights, *flags, environment=environment()) as (port, _):
        yield port, trusted


def ask(
    server: tuple[int, ssl.SSLContext],
    method: str,
    path: str,
    body: bytes | None = None,
    given: str = "",
) -> tuple[int, Any, "http.client.HTTPMessage"]:
    port, trusted = server
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trusted)
    connection.request(method, path, body, {"Authorization": given})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    is_json = "json" in answer.headers.get("content-type", "")
    return answer.status, json.loads(text) if is_json else text, answer.headers


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


RIGHT = [f"Bearer {TOKEN}", f"bearer  {TOKEN}", basic(TOKEN)]
WRONG = [
    "",
    "Bearer",
    "Bearer ",
    f"Bearer {TOKEN[:-1]}",
    f"Bearer {TOKEN}x",
    TOKEN,
    f"Token {TOKEN}",
]
WRONG += [basic(""), basic("x"), "Basic", "Basic %%%", "Basic " + TOKEN, "Bearer \xe9"]


@pytest.mark.parametrize("given", RIGHT)
def test_a_request_with_the_token_is_answered(
    given: str, server: tuple[int, ssl.SSLContext], image_folder: Path
) -> None:
    image = next((image_folder / "val").rglob("*.png")).read_bytes()
    status, said, _ = ask(server, "POST", "/predict", image, given)
    assert status == 200 and len(said["predictions"]) == 1


@pytest.mark.parametrize("given", WRONG)
def test_a_request_without_the_token_is_refused_whatever_it_asks(
    given: str, server: tuple[int, ssl.SSLContext]
) -> None:
    paths = ("/", "/predict", "/model", "/metrics", "/docs", "/openapi.json", "/v2", "/none")
    for path in paths if given == "" else paths[:2]:
        method = "POST" if path == "/predict" else "GET"
        status, said, headers = ask(server, method, path, None, given)
        assert status == 401 and said == {"error": "a token is needed: Authorization: Bearer TOKEN"}
        assert headers.get_all("www-authenticate") == ['Basic realm="densenet121"', "Bearer"]
        assert headers["connection"] == "close"


def test_two_tokens_are_none(server: tuple[int, ssl.SSLContext]) -> None:
    port, trusted = server
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trusted)
    connection.putrequest("GET", "/model")
    for token in ("x", TOKEN):
        connection.putheader("Authorization", f"Bearer {token}")
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()


def test_probes_of_health_need_no_token(server: tuple[int, ssl.SSLContext]) -> None:
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert ask(server, "GET", path)[0] == 200, path


def test_the_addresses_in_answers_are_those_before_a_proxy(
    server: tuple[int, ssl.SSLContext],
) -> None:
    text = ask(server, "GET", "/docs", given=RIGHT[0])[1].decode()
    assert "'/cats/openapi.json'" in text
    assert set(re.findall(r'(?:src|href)="(/\w+)', text)) == {"/cats"}
    document = ask(server, "GET", "/openapi.json", given=RIGHT[0])[1]
    assert document["servers"] == [{"url": "/cats"}] and "/predict" in document["paths"]
    status, _, headers = ask(server, "POST", "/predict/?top_k=3", b"", RIGHT[0])
    assert (status, headers["location"]) == (307, "/cats/predict?top_k=3")
    assert ask(server, "GET", "/predict/", b"")[0] == 401


@pytest.mark.parametrize("path", ["cats", "/cats/", "/", "//cats", "/a b", "/ä", "/a?b"])
def test_a_root_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="--root_path must begin with a slash"):
        ServeConfig(weights="w", root_path=path)


def test_plain_http_has_no_answer_where_tls_is_on(server: tuple[int, ssl.SSLContext]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server[0], timeout=60)
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.request("GET", "/healthz")
        connection.getresponse()
    connection.close()


def test_a_file_that_is_no_token_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for content, reason in (
        (b"", "has 0 characters; at least 16"),
        (b"secret", "has 6 characters; at least 16"),
        (b"first-secret-line\nsecond-secret-line", "one line of printable ASCII"),
        ("secr\xe8t-secret-secret".encode(), "one line of printable ASCII"),
        (b"secret" * 5 + b"\0", "one line of printable ASCII"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=reason) as caught:
            read_token(path)
        assert str(path) in str(caught.value) and "secr" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_token(tmp_path / "none")
    path.write_text(f" {TOKEN}\r\n")
    assert read_token(path) == TOKEN.encode()


def test_a_certificate_and_key_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    _, other = certificate(tmp_path, "other")
    check_tls(pem, key)
    with pytest.raises(InputError, match=r"not a certificate and its key.*KEY_VALUES_MISMATCH"):
        check_tls(pem, other)
    for wrong in ((key, key), (pem, pem)):
        with pytest.raises(InputError, match="not a certificate and its key"):
            check_tls(*wrong)
    with pytest.raises(InputError, match=r"`tls_key` .*none: cannot be read"):
        check_tls(pem, tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"`tls_key` .*pipe into which nothing is written"):
        check_tls(pem, tmp_path / "pipe")
    with pytest.raises(InputError, match=r"`tls_certificate` /dev/null: is no file"):
        check_tls(Path(os.devnull), key)


def test_half_of_the_pair_is_wrong_usage(weights: Path) -> None:
    done = run_command("serve", weights, "--tls_key", "x")
    assert done.returncode == 2
    assert "--tls_certificate and --tls_key must be given together" in done.stderr
    done = run_command("serve", weights, "--token_file", "none")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "--token_file" in done.stderr


def test_a_client_that_keeps_its_connection_does_not_hold_up_the_end(
    weights: Path, tmp_path: Path
) -> None:
    """With TLS the server waited half a minute for the client to close it, too."""
    pem, key = certificate(tmp_path)
    flags = [*FLAGS, "--tls_certificate", pem, "--tls_key", key]
    trusted = ssl.create_default_context(cafile=str(pem))
    with running_server(weights, *flags, environment=environment()) as (port, process):
        client = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trusted)
        client.request("GET", "/healthz")
        assert client.getresponse().read() == b'{"status":"alive"}'
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=25) == 0
        client.close()
