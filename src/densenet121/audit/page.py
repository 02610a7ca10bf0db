"""The audit page: one HTML file with the images of all findings."""

import cv2
import numpy as np

from densenet121.audit.findings import FAULTS, KINDS, Audit, Finding
from densenet121.datasets.decoding import decode
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.reading import Reading
from densenet121.pages.markup import bullets, card, escape, image, section
from densenet121.pages.style import CSS
from densenet121.utils.errors import InputError
from densenet121.utils.plural import plural

_SIDE = 128  # maximum side of a thumbnail, in pixels
_MOST = 200  # images shown of each kind


def page(audit: Audit, reading: Reading) -> str:
    """The page as self-contained HTML."""
    numbers = {
        name: {path: i for i, path in enumerate(part.paths)} for name, part in audit.dataset.items()
    }
    total = sum(len(part) for part in audit.dataset.values())
    faults = sum(finding.kind in FAULTS for finding in audit.findings)
    cards = (
        card(plural(total, "image"), ", ".join(f"{len(p)} {s}" for s, p in audit.dataset.items())),
        card(plural(faults, "fault"), "make training or evaluation wrong", main=True),
        card(plural(len(audit.findings) - faults, "remark"), "may be harmless"),
        card(str(len(audit.excluded)), "images recommended to exclude"),
    )
    parts = []
    for kind, meaning in KINDS.items():
        own = [finding for finding in audit.findings if finding.kind == kind]
        if own:
            parts.append(_section(kind, meaning, own, audit, numbers, reading))
    roots = bullets("missing", "Folders", [str(part.root) for part in audit.dataset.values()])
    nothing = section("No findings", "Every image was decoded and compared.")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit</title><style>{CSS}</style></head><body><main>"
        "<header><p>densenet121 audit</p><h1>Findings in the images</h1></header>"
        f'<div class="cards">{"".join(cards)}</div>{roots}{"".join(parts) or nothing}'
        "</main></body></html>\n"
    )


def _section(
    kind: str,
    meaning: str,
    findings: list[Finding],
    audit: Audit,
    numbers: dict[str, dict[str, int]],
    reading: Reading,
) -> str:
    figures = [_figure(finding, audit, numbers, reading) for finding in findings[:_MOST]]
    text = "Fault." if kind in FAULTS else "Remark."
    if len(findings) > _MOST:
        text += f" Shows the first {_MOST} of {len(findings)}; the JSON output has all."
    title = f"{meaning[0].upper()}{meaning[1:]}: {len(findings)}"
    return section(title, text, f'<div class="errors">{"".join(figures)}</div>')


def _figure(
    finding: Finding, audit: Audit, numbers: dict[str, dict[str, int]], reading: Reading
) -> str:
    places = [(finding.split, finding.path)]
    if finding.other is not None:
        places.append(finding.other)
    images = ""
    for split, path in places:
        index = numbers[split].get(path)
        if index is not None:
            images += f'<div class="image">{_small(audit.dataset[split], index, reading)}</div>'
    place = escape(f"{finding.split}/{finding.path}")
    return (
        f'<figure>{images}<figcaption><span class="wrong">{escape(finding.detail)}</span>'
        f'<span class="path">{place}</span></figcaption></figure>'
    )


def _small(dataset: ImageDataset, index: int, reading: Reading) -> str:
    try:
        data = dataset.read(index)
        pixels = decode(data, reading=reading) if isinstance(data, bytes) else data
    except InputError:
        return "not readable"
    scale = min(1.0, _SIDE / max(pixels.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(small[:, :, ::-1]))
    return image(jpeg.tobytes(), "jpeg", "", f'width="{width}" height="{height}"')
