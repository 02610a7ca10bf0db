"""Every training image that validation has too is in the list to leave out, however many."""

import tracemalloc
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densenet121.audit.audit import audit
from densenet121.audit.copies import find_copies
from densenet121.audit.facts import ImageFacts
from densenet121.audit.findings import Audit
from densenet121.config import AuditConfig


def scene(seed: int) -> NDArray[np.uint8]:
    """Smooth colours, no two images alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (128, 128), interpolation=cv2.INTER_CUBIC), np.uint8)


def checked(root: Path, images: dict[str, tuple[int, int]]) -> Audit:
    """The audit of images ``split/class/name``, each of a scene, as JPEG of a quality."""
    sound = {f"{s}/{c}/own.jpg": (ord(s[0]) + ord(c), 95) for s in ("train", "val") for c in "ab"}
    for path, (seed, quality) in (images | sound).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(seed)).save(root / path, quality=quality)
    return audit(AuditConfig(source=str(root)))


def details(found: Audit, kind: str) -> dict[str, str]:
    return {f"{f.split}/{f.path}": f.detail for f in found.findings if f.kind == kind}


def test_all_near_copies_in_train_of_a_validation_image_are_left_out(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        {
            "train/a/1.jpg": (1, 95),
            "train/a/2.jpg": (1, 80),
            "train/a/3.jpg": (1, 60),
            "val/a/9.jpg": (1, 70),
        },
    )
    assert details(found, "train_and_val") == {
        "val/a/9.jpg": "nearly the same image as train/a/1.jpg and 2 more like it"
    }
    assert found.excluded == ("train/a/1.jpg", "train/a/2.jpg", "train/a/3.jpg")
    for line in found.excluded:
        (tmp_path / line).unlink()
    again = audit(AuditConfig(source=str(tmp_path)))
    assert again.findings == () and again.excluded == ()


def test_exact_and_near_copies_of_a_validation_image_are_left_out_together(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        {
            "train/a/1.jpg": (1, 95),
            "train/a/2.jpg": (1, 60),
            "val/a/8.jpg": (1, 95),
            "val/a/9.jpg": (1, 95),
        },
    )
    assert details(found, "train_and_val") == {
        "val/a/8.jpg": "same pixels as train/a/1.jpg and 1 more like it",
        "val/a/9.jpg": "same pixels as train/a/1.jpg and 1 more like it",
    }
    assert details(found, "exact_duplicate") == {"val/a/9.jpg": "same pixels as val/a/8.jpg"}
    assert found.excluded == ("train/a/1.jpg", "train/a/2.jpg", "val/a/9.jpg")


def test_all_contradicting_classes_of_a_copy_are_named(tmp_path: Path) -> None:
    found = checked(
        tmp_path,
        {
            "train/a/1.jpg": (1, 95),
            "train/a/2.jpg": (1, 95),
            "train/b/3.jpg": (1, 95),
            "train/c/4.jpg": (1, 60),
            "val/c/own.jpg": (50, 95),
        },
    )
    assert details(found, "two_classes") == {
        "train/b/3.jpg": "same pixels as train/a/1.jpg and 1 more like it: b and a",
        "train/c/4.jpg": "nearly the same image as train/a/1.jpg and 2 more like it: c and a, b",
    }


def facts_of(digest: int, perceptual: int) -> ImageFacts:
    """An image with one of few pictures."""
    grey = np.zeros((4, 4), dtype=np.float32)
    grey[0, 0] = 1
    return ImageFacts(
        None, digest=digest.to_bytes(4, "big"), perceptual=perceptual, grey=grey, height=9, width=9
    )


def test_thousands_of_copies_are_found_in_memory_for_the_images_not_for_their_pairs() -> None:
    """Two pictures a bit apart, in 500 classes: of 1,500 images a million pairs look the same."""
    facts = [facts_of(index % 2, 7 + index % 2) for index in range(1500)]
    labels = [f"class {index % 500:03}" for index in range(1500)]
    tracemalloc.start()
    found, leaked = find_copies(["train"] * 1500, labels, facts, 4)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20e6  # with every pair it was hundreds of megabytes
    assert not leaked
    last = {copy.relation: copy for copy in found if copy.index == 1499}
    assert last["two_classes"].number == 1500 - 3 and len(last["two_classes"].labels) == 499
    assert last["two_classes"].is_exact and last["two_classes"].first == 1
    assert sum(copy.relation == "copy" for copy in found) == 1499


def test_of_many_contradicting_classes_the_first_are_named(tmp_path: Path) -> None:
    found = checked(tmp_path, {f"train/c{number:02}/1.jpg": (1, 95) for number in range(23)})
    last = details(found, "two_classes")["train/c22/1.jpg"]
    assert last.startswith("same pixels as train/c00/1.jpg and 21 more like it: c22 and c00, c01,")
    assert last.endswith("c19 and 2 more")
