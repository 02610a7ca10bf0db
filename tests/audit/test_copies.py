"""Every training image that validation has too is in the list to leave out, however many."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densenet121.audit.audit import audit
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
