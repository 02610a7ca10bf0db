"""The findings of an audit as text and as JSON."""

import json
from dataclasses import asdict
from typing import Any

from densenet121.audit.findings import KINDS, REMARKS, Audit
from densenet121.audit.labels import label_counts, lines_of
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.utils.errors import visible_lines


def table(result: Audit, most: int = 5) -> str:
    """The findings as text, with the first few of each kind."""
    lines = [
        line
        for split, part in result.dataset.items()
        for line in (
            f"{split}: {part.summary} in {part.root}",
            *(lines_of(part) if part.labels.ndim == 2 else ()),
        )
    ]
    lines += [f"note: {note}" for part in result.dataset.values() for note in part.notes]
    for kind, meaning in KINDS.items():
        own = [finding for finding in result.findings if finding.kind == kind]
        if own:
            lines += ["", f"{'' if kind in REMARKS else 'FAULT: '}{meaning}: {len(own)}"]
            lines += [f"  {f.split}/{f.path}: {f.detail}" for f in own[:most]]
            if len(own) > most:
                lines.append(
                    f"  and {len(own) - most} more (the JSON output and the page show all)"
                )
    if not result.findings:
        lines += ["", "no findings"]
    return visible_lines(lines)


def _counts(part: ImageDataset) -> dict[str, Any]:
    if part.labels.ndim == 2:
        return label_counts(part)
    return {"classes": dict(zip(part.class_names, part.counts().tolist(), strict=True))}


def as_json(result: Audit) -> str:
    """The findings as JSON."""
    content: dict[str, Any] = {
        "splits": {
            split: {
                "root": str(part.root),
                "pictures": len(part),
                "fingerprint": part.fingerprint,
                **_counts(part),
                "notes": list(part.notes),
            }
            for split, part in result.dataset.items()
        },
        "faults": result.has_faults,
        "findings": [asdict(finding) for finding in result.findings],
        "excluded": list(result.excluded),
    }
    return json.dumps(content, indent=2).encode("utf-8", "backslashreplace").decode()
