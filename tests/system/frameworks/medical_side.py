"""MONAI's and torchxrayvision's half of tests/system/test_frameworks_medical.py.

make LIBRARY CHANNELS FOLDER    random weights -> weights.pth, whole.pt, logits of grey.npy
load LIBRARY CHANNELS FOLDER    logits of the weights in theirs.pth

grey.npy has grey levels, (N, H, W) uint8; the images are scaled as the library scales them.
"""

import sys
from pathlib import Path

import numpy as np
import torch

CHEXNET = "chexnet"


def build(library, channels, outputs):
    if library.startswith("DenseNet"):
        import monai.networks.nets

        network = getattr(monai.networks.nets, library)
        return network(spatial_dims=2, in_channels=channels, out_channels=outputs).eval()
    if library == CHEXNET:
        return CheXNet(outputs).eval()
    import torchxrayvision

    thresholds = torch.full((outputs,), 0.5)
    return torchxrayvision.models.DenseNet(
        num_classes=outputs, in_channels=channels, op_threshs=thresholds
    ).eval()


class CheXNet(torch.nn.Module):
    """As arnoweng/CheXNet and zoogzog/chexnet have it."""

    def __init__(self, outputs):
        super().__init__()
        import torchvision

        self.densenet121 = torchvision.models.densenet121()
        width = self.densenet121.classifier.in_features
        self.densenet121.classifier = torch.nn.Sequential(
            torch.nn.Linear(width, outputs), torch.nn.Sigmoid()
        )

    def forward(self, images):
        return self.densenet121(images)


def randomise(model, large):
    rng = np.random.default_rng(1)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or name == "op_threshs":
            continue
        shape = tuple(tensor.shape)
        value = rng.normal(size=shape) * 0.1
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        if large and name == "features.norm0.running_var":
            value = value * 1e6  # the inputs are of the order of 1000
        tensor.copy_(torch.from_numpy(value.astype(np.float32)))


def images_of(library, channels, folder):
    grey = np.load(folder / "grey.npy")
    if library == "torchxrayvision":
        from torchxrayvision.datasets import normalize

        scaled = np.stack([normalize(image, 255) for image in grey])
    else:
        scaled = grey.astype(np.float32) / 255
    images = torch.from_numpy(scaled)[:, None].repeat(1, channels, 1, 1)
    if library == CHEXNET:
        from torchvision.transforms import Normalize

        images = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(images)
    return images


@torch.no_grad()
def main(action, library, channels, folder):
    folder, channels = Path(folder), int(channels)
    xray = library == "torchxrayvision"
    outputs = 14 if library == CHEXNET else 18 if xray else 5
    content = torch.load(folder / "theirs.pth") if action == "load" else None
    if content is not None and xray:
        outputs, content = len(content["labels"]), content["state_dict"]
    model = build(library, channels, outputs)
    images = images_of(library, channels, folder)
    if action == "make":
        randomise(model, xray)
    else:
        if xray:
            model.op_threshs = None
        model.load_state_dict(content)
    shown = model(images)
    if xray and action == "make":
        # Thresholds between the two images' probabilities; nan where there is no label.
        model.op_threshs = None
        logits = model(images)
        thresholds = logits.sigmoid().mean(0)
        thresholds[14:] = float("nan")
        model.op_threshs = thresholds
        np.save(folder / "shown.npy", model(images).numpy())
        np.save(folder / "logits.npy", logits.numpy())
    else:
        np.save(folder / "logits.npy", shown.numpy())
    if action == "make":
        state = model.state_dict()
        if library == CHEXNET:
            state = {"state_dict": {f"module.{name}": t for name, t in state.items()}}
        torch.save(state, folder / "weights.pth")
        if library != CHEXNET:
            torch.save(model, folder / "whole.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
