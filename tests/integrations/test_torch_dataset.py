"""The images of a run as torch's datasets, in loops that are not ours."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from densenet121 import (
    EpochSampler,
    EvalConfig,
    Predictor,
    TorchDataset,
    TrainConfig,
    evaluation_dataset,
    load_model,
    train,
    training_datasets,
)
from densenet121.commands.pack import pack
from densenet121.config import PackConfig
from densenet121.datasets.operations import apply
from densenet121.datasets.transforms import TrainTransform, uniforms
from densenet121.network import build
from densenet121.optimizers import get_param_groups
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.var_init import initialise

from helpers.images import write_classes
from helpers.training import train_config
from helpers.weights import write_weights

MEAN, STD = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255


def config_of(folder: Path, **flags: Any) -> TrainConfig:
    return train_config(folder, folder / "unused", **flags)


def stacked(dataset: TorchDataset, epoch: int) -> torch.Tensor:
    dataset.set_epoch(epoch)
    return torch.stack([dataset[i][0] for i in range(len(dataset))])


def test_an_item_is_the_image_the_label_and_the_path_of_an_image(image_folder: Path) -> None:
    dataset, validation = training_datasets(
        config_of(image_folder, augment="none", eval_resize=16), normalised=False, ids=True
    )
    assert validation is not None
    assert (len(dataset), len(validation)) == (45, 21)
    assert dataset.class_names == ("ant", "bee", "cat")
    for side, folder in ((dataset, "train"), (validation, "val")):
        image, label, name = side[20]
        file = cv2.imread(str(image_folder / folder / name), cv2.IMREAD_COLOR)
        assert file is not None
        expected = cv2.resize(file, (16, 16), interpolation=cv2.INTER_LINEAR)[:, :, ::-1]
        assert np.array_equal(image.numpy(), expected)
        assert (side.class_names[label], type(label)) == (name.split("/")[0], int)
    assert Counter(label for _, label, _ in dataset) == {0: 15, 1: 15, 2: 15}


def test_augmentation_is_a_function_of_seed_epoch_and_index(image_folder: Path) -> None:
    """The operations one by one on OpenCV's pixels, and (x - mean) / std."""
    dataset, _ = training_datasets(config_of(image_folder, seed=5))
    dataset.set_epoch(3)
    image, _ = dataset[7]
    pixels = cv2.imread(str(image_folder / "train" / dataset.paths[7]), cv2.IMREAD_COLOR_RGB)
    assert pixels is not None
    height, width, _ = pixels.shape
    transform = TrainTransform(16, 16)
    u = uniforms(5, 3, 7, transform.num_uniforms)
    expected = apply(transform.operations(height, width, u), pixels.astype(np.uint8))
    normalised = ((expected - MEAN) / STD).transpose(2, 0, 1)
    assert np.abs(image.numpy() - normalised).max() < 1e-5
    assert not torch.equal(stacked(dataset, 0), stacked(dataset, 1))
    assert torch.equal(dataset[-1][0], dataset[44][0])
    with pytest.raises(IndexError):
        dataset[45]


def test_a_loop_of_ones_own_gives_the_weights_of_train_to_the_bit(
    image_folder: Path, tmp_path: Path
) -> None:
    config = train_config(image_folder / "train", tmp_path / "run", optimizer="nesterov",
                          amp="fp32", lr_scheduler="constant", label_smooth=1,
                          per_batch_size=8, max_epoch=1, device="cpu")  # fmt: skip
    dataset, _ = training_datasets(config)
    sampler = EpochSampler(dataset)
    loader = DataLoader(dataset, 8, sampler=sampler, drop_last=True)
    model = build("densenet40", num_classes=3)
    initialise(model, torch.Generator().manual_seed(config.seed))
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    groups = get_param_groups(model, config.weight_decay)
    sgd = torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True, fused=True)
    for epoch in range(config.max_epoch):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            sgd.zero_grad()
            logits = model(images.contiguous(memory_format=torch.channels_last))
            dataset.task.loss(logits, labels).backward()  # type: ignore[no-untyped-call]
            sgd.step()
    theirs = load_model(train(config).folder / "last.safetensors").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("sampler", ["uniform", "balanced"])
def test_the_shares_of_ranks_are_the_order_of_one(image_folder: Path, sampler: str) -> None:
    dataset, _ = training_datasets(config_of(image_folder, sampler=sampler))
    whole, parts = EpochSampler(dataset), [EpochSampler(dataset, rank, 2) for rank in (0, 1)]
    for one in (whole, *parts):
        one.set_epoch(2)
    order = list(whole)
    assert len(order) == len(whole) == 45
    assert [len(part) for part in parts] == [22, 22]
    assert [list(part) for part in parts] == [order[:44][0::2], order[:44][1::2]]
    if sampler == "balanced":  # copies of an image differ
        (repeated, _), *_ = Counter(draw.number % 45 for draw in order).most_common(1)
        copies = [dataset[draw][0] for draw in order if draw.number % 45 == repeated]
        assert len(copies) > 1
        assert not torch.equal(copies[0], copies[1])
    else:
        assert sorted(draw.number for draw in order) == list(range(45))


def test_workers_that_live_for_several_epochs_see_the_epoch(image_folder: Path) -> None:
    dataset, _ = training_datasets(config_of(image_folder))
    loader = DataLoader(dataset, 45, num_workers=2, persistent_workers=True,
                        multiprocessing_context="fork")  # fmt: skip
    for epoch in (0, 4):
        dataset.set_epoch(epoch)
        ((images, labels),) = loader
        assert torch.equal(images, stacked(dataset, epoch))
        assert labels.tolist() == [0] * 15 + [1] * 15 + [2] * 15


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_of_worker_gives_the_same_images(
    tmp_path: Path, start: str, packed: bool
) -> None:
    source = write_classes(tmp_path / "images", ["ant", "bee"], 10)
    if packed:
        pack(PackConfig(source=str(source), output=str(tmp_path / "shards")))
        source = tmp_path / "shards"
    dataset, _ = training_datasets(config_of(source))
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        loader = DataLoader(dataset, 5, num_workers=2, multiprocessing_context=start)
        assert torch.equal(torch.cat([images for images, _ in loader]), stacked(dataset, epoch))


def test_a_copy_that_finds_other_shards_says_so(tmp_path: Path) -> None:
    for count, name in ((3, "a"), (2, "b")):
        write_classes(tmp_path / name, ["ant", "bee"], count)
        pack(PackConfig(source=str(tmp_path / name), output=str(tmp_path / f"{name}_shards")))
    dataset, _ = training_datasets(config_of(tmp_path / "a_shards"))
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[1][0], dataset[1][0])
    other = pickle.loads(pickle.dumps(dataset))
    (tmp_path / "a_shards").rename(tmp_path / "away")
    (tmp_path / "b_shards").rename(tmp_path / "a_shards")
    with pytest.raises(InputError, match="a_shards: has changed since it was opened"):
        other[0]


def test_several_labels_are_a_vector_with_nan_for_what_is_not_known(tmp_path: Path) -> None:
    write_classes(tmp_path, ["images"], 3)
    lines = ["path,ill,old", "images/000.png,1,0", "images/001.png,0,-1", "images/002.png,0,1"]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    config = config_of(tmp_path / "labels.csv", task="multilabel", uncertain="ignore")
    dataset, validation = training_datasets(config, ids=True)
    assert validation is None
    ((images, labels, ids),) = DataLoader(dataset, 3)
    assert (images.shape, ids) == ((3, 3, 16, 16), tuple(f"images/{i:03}.png" for i in range(3)))
    assert labels.dtype == torch.float32
    assert labels.nan_to_num(9).tolist() == [[1, 0], [0, 9], [0, 1]]
    loss = dataset.task.loss(torch.zeros(3, 2), labels)
    assert float(loss) == pytest.approx(np.log(2))


def test_images_for_evaluation_are_those_of_the_weights(image_folder: Path, tmp_path: Path) -> None:
    weights = str(write_weights(tmp_path / "weights.safetensors"))
    dataset = evaluation_dataset(EvalConfig(data_dir=str(image_folder), pretrained=weights))
    model = load_model(weights)
    ((images, labels),) = DataLoader(dataset, 21)
    assert labels.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    predictor = Predictor(weights, amp="fp32")
    files = [str(image_folder / "val" / name) for name in dataset.paths]
    pixels = np.stack([predictor.prepare(file) for file in files])
    raw = evaluation_dataset(
        EvalConfig(data_dir=str(image_folder), pretrained=weights), normalised=False
    )
    assert np.array_equal(np.stack([raw[i][0] for i in range(21)]), pixels)
    assert torch.equal(raw.preprocessing.normalise(torch.from_numpy(pixels)), images)
    with torch.inference_mode():
        logits = model(images)
    assert torch.allclose(logits, torch.from_numpy(predictor.logits(torch.from_numpy(pixels))))
    with pytest.raises(UsageError, match="no order of an epoch"):
        EpochSampler(dataset)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"mixup": 0.2}, "`mixup` mixes the images of a batch"),
        ({"cutmix": 1.0}, "`cutmix` mixes"),
        ({"on_bad_image": "skip"}, "`on_bad_image` skip"),
        ({"resume": "auto"}, "`resume` is for train"),
    ],
)
def test_what_needs_whole_batches_is_refused(
    image_folder: Path, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        training_datasets(config_of(image_folder, **flags))


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, ["ant", "bee"], 2)
    (tmp_path / "ant" / "000.png").write_bytes(b"no image")
    dataset, _ = training_datasets(config_of(tmp_path))
    with pytest.raises(InputError, match=r"ant/000\.png: "):
        dataset[0]
    with pytest.raises(InputError, match="counts from 0, got -1"):
        dataset.set_epoch(-1)
    with pytest.raises(UsageError, match="`epoch` must be of type int or integer, got '1'"):
        dataset.set_epoch("1")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="`rank` must be of type int or integer, got '0'"):
        EpochSampler(dataset, "0", 2)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="`rank` must be from 0 to 1, got 2"):
        EpochSampler(dataset, 2, 2)
    part: Any = torch.utils.data.Subset(dataset, [0, 1])
    with pytest.raises(UsageError, match="`dataset` is a Subset, but a dataset of `training_data"):
        EpochSampler(part)
