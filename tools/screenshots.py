"""Take the screenshots in docs/images/: pages of the report, audit, show and the server.

Usage: ``python tools/screenshots.py [--demo FOLDER] [--labels FOLDER] [--chromium FILE]``. --demo
is the folder of ``densenet121 demo`` with all of its output, --labels the folder in which the
commands of the tutorial on several labels were run; the browser is by default ``chromium`` on the
PATH.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from sklearn.datasets import load_sample_images

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
DIGITS = ("3/1004.png", "8/0684.png", "5/1568.png")
PATIENTS = ("004_0.png", "005_1.png")
PROGRAM = [sys.executable, "-m", "densenet121"]


def main() -> None:
    """Take those of the folders that are given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--demo", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    asked = parser.parse_args()
    with sync_playwright() as player, tempfile.TemporaryDirectory() as folder:
        browser = player.chromium.launch(executable_path=asked.chromium, args=["--no-sandbox"])
        if asked.demo:
            demo = asked.demo.resolve()
            report(browser, demo / "run" / "report.html")
            audit(browser, Path(folder))
            show(browser, Path(folder))
            files = [demo / "digits" / "val" / name for name in DIGITS]
            flags = ["--top_k", "4", "--cam_layer", "features.denseblock2"]
            server(browser, demo / "run" / "last.safetensors", files, "serve.png", flags)
        if asked.labels:
            folder_of_labels = asked.labels.resolve()
            several_labels(browser, folder_of_labels / "output" / "test" / "report.html")
            files = [folder_of_labels / "images" / name for name in PATIENTS]
            weights = folder_of_labels / "output" / "first" / "last_calibrated.safetensors"
            server(browser, weights, files, "serve_labels.png")
        browser.close()


def several_labels(browser: Browser, file: Path) -> None:
    """The report of several labels: its head, tables with intervals, and curves."""
    page = opened(browser, file.as_uri(), 1080)
    (end,) = (
        box["y"]
        for element in page.query_selector_all("h2")
        if element.inner_text() == "Most confident errors" and (box := element.bounding_box())
    )
    part(page, "report_labels.png", 20, end - 40)


def report(browser: Browser, file: Path) -> None:
    """The report's head and curves, its confusion matrix, its confidence and errors."""
    page = opened(browser, file.as_uri(), 1080)
    tops = {
        element.inner_text(): box["y"]
        for element in page.query_selector_all("h2")
        if (box := element.bounding_box())
    }
    part(page, "report.png", 20, tops["Curves"] + 340)
    part(page, "report_confusion.png", tops["Confusion"] - 30, tops["Classes"] - 30)
    end = tops["Settings and environment"] - 30
    part(page, "report_confidence.png", tops["Confidence"] - 30, end)


def audit(browser: Browser, folder: Path) -> None:
    """The top of the page about images with some faults."""
    write_images(folder / "images")
    sheet = folder / "sheet.html"
    subprocess.run(
        [*PROGRAM, "audit", "images", "--page", sheet], cwd=folder, check=False, capture_output=True
    )
    text = sheet.read_text(encoding="utf-8")
    sheet.write_text(text.replace(f"{folder}/", ""), encoding="utf-8")
    part(opened(browser, sheet.as_uri(), 1000), "audit.png", 0, 1300)


def show(browser: Browser, folder: Path) -> None:
    """Parts of two photographs before and after TrivialAugment and erasing."""
    write_images(folder / "good", faults=False)
    sheet = folder / "shown.html"
    flags = ["--augment", "trivial", "--erase_prob", "0.3", "--images", "2"]
    subprocess.run(
        [*PROGRAM, "show", "--data_dir", "good", "--output", sheet, *flags], cwd=folder, check=True
    )
    text = sheet.read_text(encoding="utf-8")
    sheet.write_text(text.replace(f"{folder}/", ""), encoding="utf-8")
    part(opened(browser, sheet.as_uri(), 1080), "show.png", 20, 1040)


def write_images(root: Path, *, faults: bool = True) -> None:
    """Parts of two photographs as two classes, and four files that are not as they should be."""
    random = np.random.default_rng(0)
    for name, photograph in zip(("china", "flower"), load_sample_images().images, strict=True):
        for number in range(27):
            y = random.integers(0, photograph.shape[0] - 180)
            x = random.integers(0, photograph.shape[1] - 200)
            file = root / ("train" if number % 3 else "val") / name / f"{number:02}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), photograph[y : y + 180, x : x + 200, ::-1])
    if not faults:
        return
    china, flower = root / "train" / "china", root / "train" / "flower"
    (china / "page.jpg").write_text("<html>not an image</html>", encoding="utf-8")
    (china / "cut.jpg").write_bytes((china / "01.jpg").read_bytes()[:4000])
    shutil.copy(root / "val" / "china" / "03.jpg", china / "again.jpg")
    shutil.copy(china / "02.jpg", flower / "other.jpg")


def server(
    browser: Browser, weights: Path, files: list[Path], name: str, flags: Sequence[str] = ()
) -> None:
    """The server's page with its answers for some images."""
    command = [*PROGRAM, "serve", str(weights), "--port", "0", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        address = next(
            found[0] for line in running.stderr if (found := re.search(r"http://\S+", line))
        )
        page = opened(browser, address, 900)
        page.set_input_files("input[type=file]", files)
        page.wait_for_selector(f"[data-done] >> nth={len(files) - 1}")
        page.wait_for_timeout(1000)
        page.screenshot(path=IMAGES / name, full_page=True)
        running.terminate()


def opened(browser: Browser, address: str, width: int) -> Page:
    """The page at an address, in a window of this width."""
    page = browser.new_page(viewport={"width": width, "height": 700})
    page.goto(address)
    page.wait_for_timeout(1000)
    return page


def part(page: Page, name: str, top: float, bottom: float) -> None:
    """Save the rows of a page from ``top`` to ``bottom``."""
    width = (page.viewport_size or {"width": 0})["width"]
    page.screenshot(
        path=IMAGES / name,
        full_page=True,
        clip={"x": 0, "y": top, "width": width, "height": bottom - top},
    )


if __name__ == "__main__":
    main()
