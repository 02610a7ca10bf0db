"""Hugging Face folders, read and written by the real timm and transformers, offline.

``make test-frameworks`` installs them into an environment of their own and runs this; elsewhere it
skips. tests/system/frameworks/hub_side.py is the half that runs there.
"""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densenet121 import Predictor
from densenet121.card import weights_card
from densenet121.card.markdown import document
from densenet121.card.weights import metadata
from densenet121.checkpoint.hugging_face import write_hugging_face
from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.datasets.decoding import read_image
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.network import DenseNet, build
from densenet121.utils.var_init import initialise

from helpers.commands import REPOSITORY, SHARED

pytestmark = pytest.mark.frameworks

HOMES = Path(os.environ.get("FRAMEWORKS", REPOSITORY / ".frameworks"))
TOLERANCE = 1e-5  # of the spread (largest less smallest) of a batch's logits
SIZES = (224, 96, 97)
NAMES = tuple(f"kind {index}" for index in range(10))
PILLOW = Preprocessing((224, 224), "short:256", interpolation="pillow_bilinear")


def other_side(action: str, *arguments: object) -> None:
    python = HOMES / "torch" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: make test-frameworks installs it")
    script = REPOSITORY / "tests" / "system" / "frameworks" / "hub_side.py"
    done = subprocess.run(
        [python, script, action, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def photographs() -> list[Path]:
    source = SHARED / "data" / "photos" / "val"
    if not source.is_dir():
        pytest.skip("../shared/data/photos is not there")
    return sorted(source.glob("*/*.jpg"))[::8]


def folder_of(
    path: Path, preprocessing: Preprocessing = PILLOW, net: str = "densenet121", **info: Any
) -> DenseNet:
    """Write a Hugging Face folder with random weights, and return the network."""
    model = build(net, num_classes=10).eval()
    generator = torch.Generator().manual_seed(7)
    initialise(model, generator)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "norm1.bias", "norm2.bias")):
            tensor.normal_(0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
    known = ModelInfo(net, "paper", NAMES, preprocessing, **info)
    source = path.with_name(f"{path.name}.safetensors")
    save_weights(source, model.state_dict(), known, {})
    write_hugging_face(source, path, lambda info, _, notes: weights_card(info, "A", "", notes))
    source.unlink()
    return model


def images_into(folder: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    for size in SIZES:
        np.save(folder / f"images_{size}.npy", torch.randn(2, 3, size, size, generator=generator))


@torch.inference_mode()
def check(model: DenseNet, folder: Path, program: str, what: str) -> None:
    worst = 0.0
    for size in SIZES:
        ours = model(torch.from_numpy(np.load(folder.parent / f"images_{size}.npy"))).numpy()
        theirs = np.load(folder / f"{program}_logits_{size}.npy")
        worst = max(worst, float(np.abs(ours - theirs).max() / np.ptp(theirs)))
    print(f"{what}: {worst:.1e} of the spread")
    assert worst < TOLERANCE


def test_our_folders_give_our_logits_in_timm_and_transformers(tmp_path: Path) -> None:
    images_into(tmp_path)
    nets = ("densenet121", "densenet161", "densenet201", "densenet264")
    models = {net: folder_of(tmp_path / net, net=net) for net in nets}
    models["several"] = folder_of(tmp_path / "several", task="multilabel")
    measured = {"type": "accuracy", "name": "Top-1 accuracy", "value": 0.7}
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": "image-folder", "name": "validation images"},
        "metrics": [measured],
    }
    page = document(metadata([{"name": "A", "results": [result]}]), "A", ["Text."])
    (tmp_path / "several" / "README.md").write_text(page)
    other_side("load", tmp_path)
    for name, model in models.items():
        for program in ("timm", "transformers"):
            check(model, tmp_path / name, program, f"{name} here -> {program}")
        told = json.loads((tmp_path / name / "told.json").read_text())
        several = name == "several"
        problem = "multi_label_classification" if several else "single_label_classification"
        assert told["problem_type"] == problem
        assert told["names"] == list(NAMES)
        assert told["card"]["pipeline_tag"] == "image-classification"
        assert told["metrics"] == ([["accuracy", 0.7]] if several else [])
    print(told["versions"])


def test_folders_of_timm_and_transformers_give_their_logits_here(tmp_path: Path) -> None:
    images_into(tmp_path)
    other_side("make", tmp_path)
    for name in ("timm", "transformers"):
        loaded = load_pretrained(tmp_path / name)
        assert loaded.info is not None
        assert loaded.family == "timm"
        assert (loaded.info.variant, loaded.info.class_names) == ("paper", NAMES)
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        assert loaded.info.preprocessing == Preprocessing(
            (224, 224),
            "short:256",
            (mean[0] * 255, mean[1] * 255, mean[2] * 255),
            (std[0] * 255, std[1] * 255, std[2] * 255),
            "pillow_bicubic",
        )
        check(loaded.model, tmp_path / name, "timm", f"{name} -> here")


def test_images_and_answers_are_the_same_there(tmp_path: Path) -> None:
    """With Pillow, which both have; benchmarks/hugging_face.py measures OpenCV against it."""
    files = photographs()
    cases = {
        "short": PILLOW,
        "bicubic": replace(PILLOW, interpolation="pillow_bicubic"),
        "stretched": Preprocessing((224, 224), "256,256", interpolation="pillow_bilinear"),
        "rectangle": Preprocessing((96, 128), "120,160", interpolation="pillow_bilinear"),
        "padded": Preprocessing((224, 224), "pad:224", interpolation="pillow_bilinear"),
    }
    for name, preprocessing in cases.items():
        folder_of(tmp_path / name, preprocessing)
    other_side("images", tmp_path, *files)
    for name, p in cases.items():
        for number, file in enumerate(files):
            pixels = np.ascontiguousarray(p.transform(read_image(file)))[None]
            ours = p.normalise(torch.from_numpy(pixels))[0].numpy()
            theirs = np.load(tmp_path / name / f"transformed_{number}.npy")
            assert np.abs(ours - theirs).max() < 1e-5, (name, file)
        answers = json.loads((tmp_path / name / "answers.json").read_text())
        predictor = Predictor(tmp_path / name, device="cpu", amp="fp32")
        for found, pipelines in zip(predictor([*files], top_k=10), answers, strict=True):
            probabilities = dict(zip(found.classes, found.probabilities, strict=True))
            for one in pipelines:
                assert abs(one["score"] - probabilities[one["label"]]) < 1e-5
