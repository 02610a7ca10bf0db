"""A refusal says in one line where, what is allowed, and what to do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from densenet121.bench.serve import running_server

from helpers.commands import environment
from helpers.serving import FLAGS, ask
from helpers.weights import write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    weights = write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")
    flags = [*FLAGS, "--root_path", "/cats"]
    with running_server(weights, *flags, environment=environment()) as (port, _):
        yield port


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", "POST"),
        ("DELETE", "/", "GET, HEAD"),
        ("PUT", "/v2", "GET, HEAD"),
        ("OPTIONS", "/v2/models/densenet40/infer", "POST"),
        ("POST", "/docs", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_which_is_allowed(
    method: str, path: str, allowed: str, port: int
) -> None:
    status, content, headers = ask(port, None, path, method)
    assert (status, headers.get_all("allow")) == (405, [allowed])
    assert content == {"error": f"{method} is not allowed for /cats{path}; {allowed} is"}


def test_an_address_with_nothing_is_named_in_one_line(port: int) -> None:
    for path, shown in (("/none", "/none"), ("/a%0Ab%00", "/a b\0"), ("/docs/../x", "/docs/../x")):
        status, content, _ = ask(port, None, path, "GET")
        reason = f"there is nothing at /cats{shown}; /cats/docs has what there is"
        assert (status, content) == (404, {"error": reason})


@pytest.mark.parametrize("path", ["/predict?a%0D%0Ab=1", "/v2/models/a%0Ab/infer"])
def test_a_line_break_of_a_client_does_not_break_the_reason(path: str, port: int) -> None:
    status, content, _ = ask(port, b"x", path)
    assert status in (400, 404) and "a b" in content["error"]


def test_a_compressed_body_is_refused_as_such(port: int, image_folder: Path) -> None:
    """It was "not an image of a known format"; an image that is not compressed was answered."""
    image = min((image_folder / "val").rglob("*.png")).read_bytes()
    status, content, _ = ask(port, image, content_encoding="gzip")
    assert (status, content) == (415, {"error": "content-encoding gzip is not supported"})
    assert ask(port, image, content_encoding="Identity")[0] == 200


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1", "HEIC, which is not read; convert it to PNG or JPEG"),
        (b"\x08\0\x05\0CS\n\0ISO_IR 100", "not an image, but DICOM without the mark DICM of"),
        (b"no image at all", "not an image of a known format (JPEG, PNG, WebP, ...)"),
    ],
)
def test_what_is_sent_in_place_of_an_image_is_named_as_predict_names_it(
    start: bytes, reason: str, port: int
) -> None:
    status, content, _ = ask(port, start + bytes(200))
    assert status == 415 and content["error"].startswith(f"image 1: {reason}")
