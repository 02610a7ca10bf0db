"""The server's page in a real browser: images in, bars and maps out, no outside host."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from densenet121.bench.serve import running_server
from densenet121.inference.predictor import Predictor
from densenet121.tasks.multi_label.calibration import Calibration, OperatingPoint
from densenet121.tasks.single_label.calibration import Calibration as OfClasses
from densenet121.utils.rounding import percent

from helpers.commands import environment
from helpers.weights import write_weights

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
playwright = pytest.importorskip(
    "playwright.sync_api", reason="the extra `browser` is not installed"
)
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome")
     if (found := shutil.which(name))), None,
)  # fmt: skip
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture(scope="module")
def port(weights: Path) -> Iterator[int]:
    flags = ["--amp", "fp32", "--top_k", 3, "--workers", 1]
    with running_server(weights, *flags, environment=environment()) as (port, _):
        yield port


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox needs rights that the root of a container has not.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield browser
        browser.close()


@contextlib.contextmanager
def new_page(browser: Any) -> Iterator[Any]:
    """An empty page in a profile of its own."""
    with contextlib.closing(browser.new_context()) as context:
        yield context.new_page()


def test_dropped_images_show_their_classes_as_bars_and_a_map(
    browser: Any, port: int, weights: Path, image_folder: Path, tmp_path: Path
) -> None:
    good = sorted((image_folder / "val" / "bee").glob("*.png"))[:2]
    bad = tmp_path / "<b>bad.png"
    bad.write_bytes(b"no image")
    hosts, faults = set(), []
    with new_page(browser) as page:
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#model:has-text('3 classes')")
        page.set_input_files("#files", [*good, bad])
        page.wait_for_selector(".image[data-done] >> nth=2")
        rows = page.locator(".image")
        assert rows.count() == 3
        for position, path in ((2, good[0]), (1, good[1])):  # the newest is on top
            row = rows.nth(position)
            (said,) = Predictor(weights, amp="fp32").predict([path], top_k=3)
            labels = row.locator("li .label span:first-child").all_text_contents()
            shares = row.locator("li .label span:last-child").all_text_contents()
            assert labels == list(said.classes)
            assert shares == [percent(share) for share in said.probabilities]
            widths = row.locator(".fill").evaluate_all("all => all.map(one => one.style.width)")
            assert abs(float(widths[0][:-1]) - 100 * said.probabilities[0]) < 0.01
            sides = row.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)")
            assert sides == [48, 256]  # the image and its map, both loaded
        assert "known format" in rows.nth(0).locator(".error").text_content()
        assert rows.nth(0).locator("figcaption").text_content() == bad.name  # text, not markup
        assert all("415" in fault for fault in faults), faults  # the browser logs the refusal
        page.goto(f"http://127.0.0.1:{port}/docs")
        page.wait_for_selector("text=Classify one or several images")
    assert {host for host in hosts if host} == {f"127.0.0.1:{port}"}


@pytest.mark.parametrize(
    ("thresholds", "chosen", "note"),
    [
        ((0.0, 1.0, 0.001), {"ant", "cat"}, "Bold labels are positive."),
        ((1.0, 1.0, 1.0), set(), "No label is positive."),
        ((), set(), "no operating point"),
    ],
)
def test_several_labels_are_shown_with_their_thresholds(
    browser: Any,
    thresholds: tuple[float, ...],
    chosen: set[str],
    note: str,
    image_folder: Path,
    tmp_path: Path,
) -> None:
    points = tuple(OperatingPoint(one, 1, 1, 2, 2) for one in thresholds)
    # Random weights give logits in the thousands, which no threshold could refuse.
    calibration = Calibration((1e6, 1e6, 1e6), points, "youden", {}) if points else None
    weights = write_weights(tmp_path / "w.safetensors", task="multilabel", calibration=calibration)
    image = image_folder / "val" / "ant" / "000.png"
    flags = ["--amp", "fp32", "--workers", 1]
    with (
        running_server(weights, *flags, environment=environment()) as (port, _),
        new_page(browser) as page,
    ):
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#model:has-text('3 labels')")
        page.set_input_files("#files", [image])
        page.wait_for_selector("[data-done] li")
        names = page.locator("li .label span:first-child").all_text_contents()
        assert sorted(names) == ["ant", "bee", "cat"]
        bold = page.locator("li.chosen .label span:first-child").all_text_contents()
        assert set(bold) == chosen
        assert names[: len(bold)] == bold
        (said,) = Predictor(weights, amp="fp32").predict([image])
        assert said.text().lstrip("+").startswith(names[0])
        assert page.locator("figcaption").nth(1).text_content() == f"evidence for {names[0]}"
        marks = page.locator(".threshold").evaluate_all("all => all.map(one => one.style.left)")
        assert sorted(float(mark[:-1]) for mark in marks) == pytest.approx(
            sorted(100 * one for one in thresholds)
        )
        assert note in (page.locator(".note").text_content() or "")


@pytest.mark.parametrize("below", [0.2, 0.9])
def test_a_class_that_is_no_answer_is_not_set_off(
    browser: Any, below: float, image_folder: Path, tmp_path: Path
) -> None:
    calibration = OfClasses(1e6, (), below, {})  # three probabilities near 1/3
    weights = write_weights(tmp_path / "w.safetensors", calibration=calibration)
    with (
        running_server(weights, "--amp", "fp32", environment=environment()) as (port, _),
        new_page(browser) as page,
    ):
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#model:has-text('3 classes')")
        page.set_input_files("#files", [image_folder / "val" / "ant" / "000.png"])
        page.wait_for_selector("[data-done] li")
        assert page.locator("li").count() == 3
        assert page.locator("li.chosen").count() == (1 if below < 1 / 3 else 0)
        notes = " ".join(page.locator(".note").all_text_contents())
        assert ("No answer" in notes) == (below > 1 / 3)


def test_an_image_can_be_dropped(browser: Any, port: int, image_folder: Path) -> None:
    with new_page(browser) as page:
        page.goto(f"http://127.0.0.1:{port}/")
        data = list((image_folder / "val" / "ant" / "000.png").read_bytes())
        transfer = page.evaluate_handle(
            """data => { const transfer = new DataTransfer();
               transfer.items.add(new File([new Uint8Array(data)], "dropped.png"));
               return transfer; }""",
            data,
        )
        page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
        page.wait_for_selector("[data-done] li")
        assert page.locator("figcaption").first.text_content() == "dropped.png"


def refusals(page: Any, files: list[Path]) -> list[str]:
    """The reasons that the page shows for files, in their order."""
    before = page.locator(".image[data-done]").count()
    page.set_input_files("#files", files)
    page.wait_for_selector(f".image[data-done] >> nth={before + len(files) - 1}")
    return list(reversed(page.locator(".error").all_text_contents()[: len(files)]))


def refused(status: int, body: str) -> Callable[[Any], None]:
    """What answers a request in place of the server."""
    return lambda route: route.fulfill(status=status, body=body)


def test_an_image_without_an_answer_has_a_reason_that_names_what_failed(
    browser: Any, port: int, image_folder: Path, tmp_path: Path
) -> None:
    image = image_folder / "val" / "ant" / "000.png"
    large = tmp_path / "large.tif"
    with large.open("wb") as file:
        file.truncate(2**24 + 1)
    with new_page(browser) as page:
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#model:has-text('3 classes')")
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url))
        (reason,) = refusals(page, [large])
        assert "16777217 bytes" in reason and "at most 16777216" in reason
        assert not [url for url in sent if "predict" in url]  # nor sent to be refused

        html = "<html>413 Request Entity Too Large</html>"
        page.route("**/predict**", lambda route: route.fulfill(status=413, body=html))
        (reason,) = refusals(page, [image])
        assert "Status 413" in reason and "proxy" in reason
        for body in ('{"message": "Forbidden"}', '{"error": {"code": 7}}', "null"):  # or in JSON
            page.unroute("**/predict**")
            page.route("**/predict**", refused(403, body))
            (reason,) = refusals(page, [image])
            assert "Status 403" in reason and "proxy" in reason
        page.unroute("**/predict**")
        page.route("**/predict**", lambda route: route.abort())
        assert refusals(page, [image]) == ["The server cannot be reached."]
        page.route("**/model", lambda route: route.fulfill(status=502, body=html))
        page.reload()
        page.wait_for_selector("#model .error:has-text('Status 502')")
        assert not faults


def test_the_first_image_waits_until_it_is_known_whether_there_are_maps(
    browser: Any, port: int, image_folder: Path
) -> None:
    with new_page(browser) as page:
        held: list[Any] = []
        page.route("**/model", lambda route: held.append(route))
        with page.expect_request("**/model"):
            page.goto(f"http://127.0.0.1:{port}/")
        with page.expect_request("**/predict**") as sent:
            page.set_input_files("#files", [image_folder / "val" / "ant" / "000.png"])
            answer = held[0].fetch()
            held[0].fulfill(response=answer, json={**answer.json(), "maps": False})
        assert not sent.value.url.endswith("cam=true")
        page.wait_for_selector("[data-done] li")
