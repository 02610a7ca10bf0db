"""Logits here equal those of the real frameworks, for weights that go either way.

``make test-frameworks`` installs them into environments of their own and runs this; elsewhere it
skips. tests/frameworks/ has the halves that run there.
"""

import itertools
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from densenet121.checkpoint.convert import Target, convert
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.datasets.decoding import read_image
from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.transforms import MEAN, STD, EvalTransform, normalise
from densenet121.inference.predictor import Predictor
from densenet121.network import DenseNet, Variant, build
from densenet121.utils.var_init import initialise

from helpers.commands import REPOSITORY, SHARED

pytestmark = pytest.mark.frameworks

HOMES = Path(os.environ.get("FRAMEWORKS", REPOSITORY / ".frameworks"))
SIZES = (224, 96, 97)
TOLERANCE = 1e-5  # of the spread (largest less smallest) of a batch's logits
# Small: with large steps a batch norm of few values turns rounding into percents within three.
LEARNING_RATE = 1e-4
IMAGES = SHARED / "data" / "imagenette" / "val"


def other_side(home: str, *arguments: object) -> None:
    python = HOMES / home / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{python} is not there: make test-frameworks installs it")
    script = "mindspore_side.py" if home == "mindspore" else "torch_side.py"
    done = subprocess.run(
        [python, REPOSITORY / "tests" / "system" / "frameworks" / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def photographs(count: int) -> list[Path]:
    if not IMAGES.is_dir():
        pytest.skip("../shared/data/imagenette is not there")
    return sorted(IMAGES.glob("*/*"))[:: 1000 // count][:count]


def prepared(size: int, count: int) -> torch.Tensor:
    transform = EvalTransform(size, size, parse_eval_resize(f"short:{size}"))
    batch = np.stack([transform(read_image(file)) for file in photographs(count)])
    return normalise(torch.from_numpy(batch), MEAN, STD).contiguous()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for size in SIZES:
        np.save(tmp_path / f"images_{size}.npy", prepared(size, 2).numpy())
    return tmp_path


@torch.inference_mode()
def difference(model: DenseNet, folder: Path) -> float:
    """The largest, as a share of the spread, over all sizes."""
    worst = 0.0
    for size in SIZES:
        images = torch.from_numpy(np.load(folder / f"images_{size}.npy"))
        theirs = np.load(folder / f"logits_{size}.npy")
        ours = model(images).numpy()
        assert ours.shape == theirs.shape == (2, 10)
        worst = max(worst, float(np.abs(ours - theirs).max() / np.ptp(theirs)))
    return worst


def check(model: DenseNet, folder: Path, what: str) -> None:
    found = difference(model, folder)
    print(f"{what}: {found:.1e} of the spread")
    assert found < TOLERANCE


def our_weights(path: Path, variant: Variant) -> DenseNet:
    model = build("densenet121", num_classes=10, variant=variant).eval()
    generator = torch.Generator().manual_seed(7)
    initialise(model, generator)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "norm1.bias", "norm2.bias")):
            tensor.normal_(0, 0.1, generator=generator)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
    mean, std = MEAN.tolist(), STD.tolist()
    told = Preprocessing(
        (224, 224), "256,256", (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
    )
    names = tuple(f"class {i}" for i in range(10))
    save_weights(path, model.state_dict(), ModelInfo("densenet121", variant, names, told), {})
    return model


@pytest.mark.parametrize("network", ["model_zoo", "paper", "mindcv"])
def test_mindspore_weights_give_mindspores_logits_here(network: str, folder: Path) -> None:
    variant = "model_zoo" if network == "model_zoo" else "paper"
    other_side("mindspore", "make", network, 1, folder)
    for name in ("weights.ckpt", "crc.ckpt", "weights.safetensors"):
        loaded = load_pretrained(folder / name)
        assert loaded.info is not None
        assert loaded.info.variant == variant
        assert loaded.family == ("mindspore" if variant == "model_zoo" else "mindcv")
        check(loaded.model, folder, f"MindSpore {network} {name} -> here")


@pytest.mark.parametrize(
    ("variant", "to", "network"),
    [
        ("model_zoo", "mindspore", "model_zoo"),
        ("paper", "mindcv", "paper"),
        ("paper", "mindcv", "mindcv"),
    ],
)
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_our_weights_give_our_logits_in_mindspore(
    variant: Variant, to: Target, network: str, suffix: str, folder: Path
) -> None:
    model = our_weights(folder / "ours.native.safetensors", variant)
    convert(folder / "ours.native.safetensors", folder / f"theirs{suffix}", to)
    other_side("mindspore", "load", network, folder / f"theirs{suffix}", folder)
    check(model, folder, f"here -> MindSpore {network} {suffix}")


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_torch_weights_give_their_logits_here(library: str, folder: Path) -> None:
    other_side("torch", "make", library, 1, folder)
    for file in sorted(folder.glob("weights.*")):
        check(load_pretrained(file).model, folder, f"{library} {file.name} -> here")


@pytest.mark.parametrize("to", ["torchvision", "timm"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_our_weights_give_our_logits_in_torch(to: Target, suffix: str, folder: Path) -> None:
    model = our_weights(folder / "ours.native.safetensors", "paper")
    convert(folder / "ours.native.safetensors", folder / f"theirs{suffix}", to)
    other_side("torch", "load", to, folder / f"theirs{suffix}", folder)
    check(model, folder, f"here -> {to} {suffix}")


def test_keras_weights_give_kerass_logits_here(folder: Path) -> None:
    other_side("keras", "make", "keras", 1, folder)
    for name in ("weights.keras", "weights.h5", "only.weights.h5"):
        loaded = load_pretrained(folder / name)
        assert loaded.family == "keras"
        check(loaded.model, folder, f"Keras {name} -> here")


def test_a_whole_keras_model_resizes_and_crops_photographs_here_as_there(tmp_path: Path) -> None:
    """Its layers keep fractions of grey levels, of which ours keeps whole ones."""
    (photograph,) = photographs(1)
    np.save(tmp_path / "pixels.npy", read_image(photograph))
    other_side("keras", "whole", "keras", tmp_path / "pixels.npy", tmp_path)
    names = sorted(file.stem for file in tmp_path.glob("*.keras"))
    assert names == sorted(
        ["adapted", "central", "cropped", "flattened", "given", "nearest", "padded", "stretched"]
    )
    for name, suffix in itertools.product(names, (".keras", ".h5")):
        theirs = np.load(tmp_path / f"{name}.npy")
        predictor = Predictor(tmp_path / f"{name}{suffix}")
        pixels = torch.from_numpy(predictor.prepare(photograph))[None]
        logits = predictor.logits(pixels)
        ours = torch.softmax(torch.from_numpy(logits), 1).numpy()
        print(f"Keras {name}{suffix}: {np.abs(ours - theirs).max():.1e}")
        assert np.abs(ours - theirs).max() < 1e-3 < 0.1 < np.ptp(theirs)


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_images_go_through_what_the_library_puts_them_through(library: str, tmp_path: Path) -> None:
    """Images of other shapes than the crop's, and of odd sizes."""
    from densenet121.checkpoint.foreign.identify import PREPROCESSING

    source = SHARED / "data" / "photos" / "val"
    if not source.is_dir():
        pytest.skip("../shared/data/photos is not there")
    for file in sorted(source.glob("*/*.jpg"))[::8]:
        other_side("torch", "pictures", library, file, tmp_path)
        told = PREPROCESSING["timm" if library == "timm" else "torchvision"]
        resize = parse_eval_resize(told.eval_resize)
        image = EvalTransform(*told.image_size, resize, told.interpolation)(read_image(file))
        ours = normalise(
            torch.from_numpy(np.ascontiguousarray(image))[None],
            torch.tensor(told.mean),
            torch.tensor(told.std),
        )[0].numpy()
        theirs = np.load(tmp_path / "transformed.npy")
        assert np.abs(ours - theirs).max() < 1e-5, file


@pytest.mark.parametrize("variant", ["model_zoo", "paper"])
def test_a_mindspore_run_goes_on_here_along_its_losses(variant: Variant, tmp_path: Path) -> None:
    steps, more, size = 3, 4, 64
    images = prepared(size, 4 * (steps + more)).reshape(steps + more, 4, 3, size, size)
    labels = torch.arange(4).repeat(steps + more, 1)
    np.save(tmp_path / "train_images.npy", images.numpy())
    np.save(tmp_path / "train_labels.npy", labels.int().numpy())
    for change in (
        0,
        1e-7,
    ):  # the second run is the first with the last bits of its weights changed
        other_side("mindspore", "train", variant, 1, tmp_path, steps, more, LEARNING_RATE, change)
    theirs = np.load(tmp_path / "losses.npy")[steps:]
    changed = np.load(tmp_path / "changed_losses.npy")[steps:]

    # Their gradients, our update: their weights.
    model, optimizer = continued(tmp_path / "training.ckpt")
    gradients = read_weights(tmp_path / "gradients.ckpt").state_dict
    for name, parameter in model.named_parameters():
        parameter.grad = gradients[name].clone()
    optimizer.step()
    after = read_weights(tmp_path / "after.ckpt").state_dict
    for name, parameter in model.named_parameters():
        scale = float(after[name].abs().max())
        assert float((parameter.detach() - after[name]).abs().max()) <= 2e-7 * scale, name

    # Our gradients: as near to float64's as theirs are.
    model, optimizer = continued(tmp_path / "training.ckpt")
    exact, _ = continued(tmp_path / "training.ckpt", torch.float64)
    errors = {}
    for own in (exact, model):
        loss = torch.nn.functional.cross_entropy(
            own(images[steps].to(next(own.parameters()).dtype)), labels[steps]
        )
        loss.backward()  # type: ignore[no-untyped-call]
    for side in ("ours", "theirs"):
        squares = norm = 0.0
        for (name, parameter), true in zip(
            model.named_parameters(), exact.parameters(), strict=True
        ):
            found = gradients[name] if side == "theirs" else parameter.grad
            assert found is not None and true.grad is not None
            squares += float((found.double() - true.grad).square().sum())
            norm += float(true.grad.square().sum())
        errors[side] = (squares / norm) ** 0.5
    # Both have a few ReLUs on the other side of 0 than float64 has.
    assert errors["ours"] <= max(3 * errors["theirs"], 1e-2), errors

    # The losses: as near as MindSpore's own run is to the same run with other last bits.
    model, optimizer = continued(tmp_path / "training.ckpt")
    ours = []
    for step in range(steps, steps + more):
        loss = torch.nn.functional.cross_entropy(model(images[step]), labels[step])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        ours.append(loss.item())
    distance, own_distance = np.abs(ours - theirs), np.abs(changed - theirs)
    print(
        json.dumps({"ours": ours, "theirs": theirs.tolist(), "changed": changed.tolist()} | errors)
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    for step in range(more):
        # Chaos: which of two runs strays first is luck, how far is not.
        assert distance[step] <= 5 * own_distance[: step + 1].max() + 1e-4 * theirs[step]


def continued(
    file: Path, dtype: torch.dtype = torch.float32
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """The network and the optimiser of a MindSpore training checkpoint."""
    from densenet121.optimizers import get_param_groups, momentum_sgd

    weights = read_weights(file)
    model = load_pretrained(file).model.train().to(dtype)
    optimizer = momentum_sgd(get_param_groups(model, 1e-4), lr=LEARNING_RATE, momentum=0.9)
    parameters = dict(model.named_parameters())
    assert weights.momentum.keys() == parameters.keys()
    for name, buffer in weights.momentum.items():
        optimizer.state[parameters[name]]["momentum_buffer"] = buffer.to(dtype, copy=True)
    return model, optimizer
