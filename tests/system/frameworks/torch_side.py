"""torchvision's, timm's and Keras's half of tests/test_frameworks.py.

make LIBRARY SEED FOLDER    random weights -> weights file, logits of images_*.npy
load LIBRARY FILE FOLDER    logits of the weights in FILE
images LIBRARY FILE FOLDER   what the library's evaluation transform makes of an image
"""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np
import torch


def build(library, classes=10):
    if library == "torchvision":
        import torchvision

        return torchvision.models.densenet121(num_classes=classes).eval()
    import timm

    return timm.create_model("densenet121", num_classes=classes).eval()


def randomise(model, seed):
    rng = np.random.default_rng(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        shape = tuple(tensor.shape)
        value = rng.normal(size=shape) * 0.1
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        tensor.copy_(torch.from_numpy(value.astype(np.float32)))


def write_logits(model, folder):
    for file in sorted(folder.glob("images_*.npy")):
        logits = model(torch.from_numpy(np.load(file))).numpy()
        np.save(folder / file.name.replace("images", "logits"), logits)


def keras(seed, folder):
    import keras

    rng = np.random.default_rng(seed)
    for file in sorted(folder.glob("images_*.npy")):
        images = np.load(file).transpose(0, 2, 3, 1)
        model = keras.applications.DenseNet121(
            weights=None, classes=10, input_shape=images.shape[1:], classifier_activation=None
        )
        rng = np.random.default_rng(seed)
        for layer in model.layers:
            new = []
            for weight in layer.weights:
                shape, last = tuple(weight.shape), weight.name
                value = rng.normal(size=shape) * 0.1
                if last in ("gamma", "moving_variance"):
                    # small, so that eps 1.001e-5 is not the same as 1e-5
                    value = rng.uniform(0.5, 1.5, shape)
                elif len(shape) > 1:
                    value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
                new.append(value.astype(np.float32))
            layer.set_weights(new)
        logits = model(images)
        np.save(folder / file.name.replace("images", "logits"), logits.detach().numpy())
    model.save(folder / "weights.keras")
    model.save(folder / "weights.h5")
    model.save_weights(folder / "only.weights.h5")


def whole_keras(file, folder):
    """Models that resize and scale their images themselves; the probabilities of a photograph."""
    import keras

    pixels = np.load(file).astype(np.float32)[None]
    crop = {"crop_to_aspect_ratio": True}
    pad = {"pad_to_aspect_ratio": True, "fill_value": 90.0}
    layers = keras.layers
    before = {
        "stretched": [layers.Resizing(96, 128)],
        "nearest": [layers.Resizing(96, 96, interpolation="nearest")],
        "cropped": [layers.Resizing(96, 96, **crop)],
        "padded": [layers.Resizing(96, 128, **pad)],
        "central": [layers.Resizing(112, 112), layers.CenterCrop(96, 96)],
        "adapted": [layers.Resizing(96, 96)],
        "given": [layers.Resizing(96, 96)],
        "flattened": [layers.Resizing(97, 124)],
    }
    adapted = layers.Normalization()
    adapted.adapt(pixels * np.array([1.0, 0.8, 0.6], np.float32))
    levels = {"mean": [0.485, 0.456, 0.406], "variance": [0.0524, 0.0502, 0.0506]}
    given = [layers.Rescaling(1 / 255), layers.Normalization(**levels)]
    scale = {"adapted": [adapted], "given": given}
    for name, steps in before.items():
        keras.utils.set_random_seed(1)
        whole = name != "flattened"
        network = keras.applications.DenseNet121(
            weights=None,
            include_top=False,
            pooling="avg" if whole else None,
            input_shape=(*sides(steps[-1]), 3),
        )
        pools = [] if whole else [layers.AveragePooling2D(3), layers.Flatten()]
        inputs = keras.Input((None, None, 3))
        x = inputs
        for step in [*steps, *scale.get(name, [layers.Rescaling(1 / 255)])]:
            x = step(x)
        for step in [network, *pools, layers.Dense(4, activation="softmax", name="predictions")]:
            x = step(x)
        model = keras.Model(inputs, x)
        weight, bias = model.layers[-1].get_weights()
        model.layers[-1].set_weights([weight * 20, bias + np.arange(4, dtype=np.float32)])
        np.save(folder / f"{name}.npy", model.predict(pixels, verbose=0))
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")


def sides(step):
    return step.height, step.width


def dataset(library, file, folder):
    from PIL import Image

    image = Image.open(file).convert("RGB")
    if library == "torchvision":
        from torchvision.models import DenseNet121_Weights

        transform = DenseNet121_Weights.IMAGENET1K_V1.transforms()
    else:
        import timm

        config = timm.get_pretrained_cfg("densenet121.ra_in1k").to_dict()
        transform = timm.data.create_transform(**timm.data.resolve_data_config(config))
    np.save(folder / "transformed.npy", transform(image).numpy())


@torch.no_grad()
def main(action, library, argument, folder):
    folder = Path(folder)
    if action == "pictures":
        dataset(library, argument, folder)
        return
    if action == "whole":
        whole_keras(argument, folder)
        return
    if library == "keras":
        keras(int(argument), folder)
        return
    model = build(library)
    if action == "load":
        if argument.endswith(".safetensors"):
            from safetensors.torch import load_file

            state = load_file(argument)
        else:
            state = torch.load(argument, weights_only=True)
        model.load_state_dict(state, strict=True)
    else:
        randomise(model, int(argument))
        torch.save(model.state_dict(), folder / "weights.pth")
        if library == "timm":
            from safetensors.torch import save_file

            save_file(model.state_dict(), folder / "weights.safetensors", {"format": "pt"})
    write_logits(model, folder)


main(*sys.argv[1:])
