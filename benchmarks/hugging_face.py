"""What another program's resizing changes: a Hugging Face folder here and in timm, image by image.

    python benchmarks/hugging_face.py FOLDER DATA

FOLDER is what ``convert --to huggingface`` wrote, DATA a folder of class folders. Needs timm.
Prints one line of JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from densenet121 import Predictor


def main(folder: Path, data: Path) -> None:
    """Classify every image both ways, and print how they differ."""
    files = sorted(data.glob("*/*"))
    torch.set_grad_enabled(False)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    predictor = Predictor(folder, device="cpu", amp="fp32", batch_size=32)
    classifier = predictor.classifier
    names = classifier.class_names
    ours = np.concatenate([logits for _, logits in predictor.batches(files)])
    theirs = np.concatenate(
        [model(transform(Image.open(file).convert("RGB"))[None]).numpy() for file in files]
    )
    labels = np.array([names.index(file.parent.name) for file in files])
    share = [torch.tensor(logits).softmax(dim=1).numpy() for logits in (ours, theirs)]
    moved = np.abs(share[0] - share[1]).max(axis=1)
    result = {
        "images": len(files),
        "preprocessing": classifier.preprocessing.to_json(),
        "timm": timm.__version__,
        "correct_here": int((ours.argmax(1) == labels).sum()),
        "correct_in_timm": int((theirs.argmax(1) == labels).sum()),
        "other_answers": int((ours.argmax(1) != theirs.argmax(1)).sum()),
        "probability_moves_by_median": float(np.median(moved)),
        "probability_moves_by_95th_percentile": float(np.quantile(moved, 0.95)),
        "probability_moves_by_at_most": float(moved.max()),
    }
    sys.stdout.write(json.dumps(result) + "\n")


main(Path(sys.argv[1]), Path(sys.argv[2]))
