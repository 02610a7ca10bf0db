"""Take the screenshots in docs/images/: pages of the demo's report, audit, show and the server.

Usage: ``python tools/screenshots.py DEMO [CHROMIUM]``. DEMO is the folder of ``densenet121 demo``
with all of its output; CHROMIUM is the browser, by default ``chromium`` on the PATH.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from sklearn.datasets import load_sample_images

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
DIGITS = ("3/1004.png", "8/0684.png", "5/1568.png")
PROGRAM = [sys.executable, "-m", "densenet121"]


def main() -> None:
    """Take all of them."""
    demo = Path(sys.argv[1]).resolve()
    chromium = sys.argv[2] if len(sys.argv) > 2 else shutil.which("chromium")
    with sync_playwright() as player, tempfile.TemporaryDirectory() as folder:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        report(browser, demo / "run" / "report.html")
        audit(browser, Path(folder))
        show(browser, Path(folder))
        server(browser, demo)
        browser.close()


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


def server(browser: Browser, demo: Path) -> None:
    """The server's page with three answers and maps of a layer that has some pixels."""
    weights = demo / "run" / "last.safetensors"
    flags = ["--port", "0", "--top_k", "4", "--cam_layer", "features.denseblock2"]
    with subprocess.Popen(
        [*PROGRAM, "serve", weights, *flags], stderr=subprocess.PIPE, text=True
    ) as running:
        assert running.stderr is not None
        address = next(
            found[0] for line in running.stderr if (found := re.search(r"http://\S+", line))
        )
        page = opened(browser, address, 900)
        files = [demo / "digits" / "val" / name for name in DIGITS]
        page.set_input_files("input[type=file]", files)
        page.wait_for_timeout(3000)
        page.screenshot(path=IMAGES / "serve.png", full_page=True)
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
