"""torchvision's and torch's half of tests/system/test_frameworks_losses.py: loss_side.py FOLDER."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

GAMMAS = (0.5, 1.0, 2.0, 5.0)


def main(folder):
    folder = Path(folder)
    logits = torch.from_numpy(np.load(folder / "logits.npy"))
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    weights = torch.from_numpy(np.load(folder / "weights.npy"))
    # One logit, positive for the second of two classes.
    difference = logits[:, 1] - logits[:, 0]
    binary = (labels > 0).to(logits.dtype)
    focal = [
        torchvision.ops.sigmoid_focal_loss(
            difference, binary, alpha=-1, gamma=gamma, reduction="mean"
        ).item()
        for gamma in GAMMAS
    ]
    weighted = F.cross_entropy(logits, labels, weight=weights).item()
    found = {"focal": focal, "weighted": weighted, "torchvision": torchvision.__version__}
    (folder / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
