"""MindSpore's half of tests/test_frameworks.py, run by a Python that has MindSpore.

make VARIANT SEED FOLDER          random weights -> weights.ckpt, logits of images_*.npy
load VARIANT FILE FOLDER          logits of the weights in FILE
train VARIANT SEED FOLDER STEPS MORE LR CHANGE   trains; after STEPS a checkpoint, then the
    gradients of the next step and the weights after it; or, if CHANGE is not 0, every weight is
    changed by CHANGE times itself, up or down. The losses of all steps
"""

import sys
from collections import OrderedDict
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

BLOCKS, GROWTH, INITIAL = (6, 12, 24, 16), 32, 64


def conv(inputs, outputs, size, stride=1):
    return nn.Conv2d(
        inputs, outputs, size, stride, pad_mode="pad", padding=size // 2, has_bias=False
    )


class Layer(nn.Cell):
    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, 4 * GROWTH, 1)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * GROWTH), conv(4 * GROWTH, GROWTH, 3)
        self.relu = nn.ReLU()

    def construct(self, x):
        return self.conv2(self.relu(self.norm2(self.conv1(self.relu(self.norm1(x))))))


class Block(nn.Cell):
    def __init__(self, layers, inputs):
        super().__init__()
        self.cell_list = nn.CellList([Layer(inputs + i * GROWTH) for i in range(layers)])

    def construct(self, x):
        for layer in self.cell_list:
            x = ops.cat((x, layer(x)), 1)
        return x


class Transition(nn.Cell):
    def __init__(self, inputs, model_zoo):
        super().__init__()
        pool = nn.MaxPool2d(2, 2) if model_zoo else nn.AvgPool2d(2, 2)
        self.features = nn.SequentialCell(
            OrderedDict(
                norm=nn.BatchNorm2d(inputs),
                relu=nn.ReLU(),
                conv=conv(inputs, inputs // 2, 1),
                pool=pool,
            )
        )

    def construct(self, x):
        return self.features(x)


def features(model_zoo):
    parts = OrderedDict(
        conv0=conv(3, INITIAL, 7, 2), norm0=nn.BatchNorm2d(INITIAL), relu0=nn.ReLU()
    )
    if model_zoo:
        parts["pool0"] = nn.MaxPool2d(3, 2, pad_mode="same")
    else:
        pad = nn.Pad(((0, 0), (0, 0), (1, 1), (1, 1)))
        parts["pool0"] = nn.SequentialCell(pad, nn.MaxPool2d(3, 2))
    channels = INITIAL
    for b, layers in enumerate(BLOCKS, start=1):
        parts[f"denseblock{b}"] = Block(layers, channels)
        channels += layers * GROWTH
        if b < len(BLOCKS):
            parts[f"transition{b}"] = Transition(channels, model_zoo)
            channels //= 2
    parts["norm5"], parts["relu5"] = nn.BatchNorm2d(channels), nn.ReLU()
    return nn.SequentialCell(parts), channels


class Backbone(nn.Cell):
    def __init__(self):
        super().__init__()
        self.features, self.channels = features(model_zoo=True)

    def construct(self, x):
        return self.features(x)


class Head(nn.Cell):
    def __init__(self, channels, classes):
        super().__init__()
        self.fc = nn.Dense(channels, classes)

    def construct(self, x):
        return self.fc(x.mean((2, 3)))


class ModelZoo(nn.Cell):
    def __init__(self, classes):
        super().__init__()
        self.backbone = Backbone()
        self.head = Head(self.backbone.channels, classes)

    def construct(self, x):
        return self.head(self.backbone(x))


class Paper(nn.Cell):
    """mindcv's names."""

    def __init__(self, classes):
        super().__init__()
        self.features, channels = features(model_zoo=False)
        self.classifier = nn.Dense(channels, classes)

    def construct(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


def build(variant, classes=10):
    if variant == "mindcv":
        from mindcv.models import densenet121

        return densenet121(num_classes=classes)
    return ModelZoo(classes) if variant == "model_zoo" else Paper(classes)


def randomise(network, seed):
    rng = np.random.default_rng(seed)
    for parameter in network.get_parameters():
        shape, last = parameter.shape, parameter.name.rpartition(".")[2]
        value = rng.normal(size=shape) * 0.1
        if last in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            value = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
        parameter.set_data(ms.Tensor(value.astype(np.float32)))


def write_logits(network, folder):
    network.set_train(False)
    for file in sorted(folder.glob("images_*.npy")):
        logits = network(ms.Tensor(np.load(file))).asnumpy()
        np.save(folder / file.name.replace("images", "logits"), logits)


def train(network, folder, steps, more, learning_rate, change):
    images = np.load(folder / "train_images.npy")
    labels = np.load(folder / "train_labels.npy")
    losses = []
    criterion = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    decayed = [p for p in network.trainable_params() if len(p.shape) > 1]
    others = [p for p in network.trainable_params() if len(p.shape) == 1]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": decayed}]
    optimizer = nn.Momentum(groups, learning_rate, 0.9, weight_decay=1e-4)
    with_loss = nn.WithLossCell(network, criterion)
    cell = nn.TrainOneStepCell(with_loss, optimizer)
    cell.set_train(True)
    for step in range(steps + more):
        if step == steps:
            ms.save_checkpoint(cell, str(folder / "training.ckpt"))
            if change:
                change_weights(network, change)
            else:
                write_gradients(with_loss, images[step], labels[step], folder)
        losses.append(float(cell(ms.Tensor(images[step]), ms.Tensor(labels[step])).asnumpy()))
        if step == steps and not change:
            ms.save_checkpoint(network, str(folder / "after.ckpt"))
    np.save(folder / ("changed_losses.npy" if change else "losses.npy"), np.array(losses))


def write_gradients(with_loss, images, labels, folder):
    """Under the names of the weights; the running statistics are put back as they were."""
    before = {p.name: p.asnumpy().copy() for p in with_loss.get_parameters()}
    parameters = with_loss.trainable_params()
    function = ms.value_and_grad(with_loss, None, ms.ParameterTuple(parameters))
    _, gradients = function(ms.Tensor(images), ms.Tensor(labels))
    found = {p.name: g.asnumpy() for p, g in zip(parameters, gradients, strict=True)}
    content = [
        {"name": p.name, "data": ms.Tensor(found.get(p.name, np.ones(p.shape, np.float32)))}
        for p in with_loss.get_parameters()
    ]
    ms.save_checkpoint(content, str(folder / "gradients.ckpt"))
    for parameter in with_loss.get_parameters():
        ops.assign(parameter, ms.Tensor(before[parameter.name]))


def change_weights(network, change):
    """In place: after set_data the optimiser would go on with the old ones."""
    rng = np.random.default_rng(0)
    for parameter in network.trainable_params():
        value = parameter.asnumpy()
        signs = rng.choice([-1, 1], value.shape)
        ops.assign(parameter, ms.Tensor((value * (1 + change * signs)).astype(np.float32)))


def main(action, variant, argument, folder, *more):
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    folder = Path(folder)
    network = build(variant)
    if action == "load":
        kind = Path(argument).suffix[1:]
        missing, unknown = ms.load_param_into_net(
            network, ms.load_checkpoint(argument, format=kind), strict_load=True
        )
        assert (missing, unknown) == ([], [])
        write_logits(network, folder)
        return
    randomise(network, int(argument))
    if action == "train":
        train(network, folder, int(more[0]), int(more[1]), float(more[2]), float(more[3]))
        return
    ms.save_checkpoint(network, str(folder / "weights.ckpt"))
    ms.save_checkpoint(network, str(folder / "crc.ckpt"), crc_check=True)
    ms.save_checkpoint(network, str(folder / "weights.safetensors"), format="safetensors")
    write_logits(network, folder)


main(*sys.argv[1:])
