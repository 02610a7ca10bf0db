"""Train in a loop of plain PyTorch: the images, the fast network and the loss of densenet121.

python examples/train_plain.py FOLDER [--epochs N] [--image_size N] [--net NAME] [--pretrained FILE]

FOLDER is whatever `densenet121 train --data_dir` takes. Writes plain.pth, which every command of
densenet121 reads: `densenet121 eval --data_dir FOLDER --pretrained plain.pth --image_size N
--interpolation opencv_bilinear` finds the accuracy of the last epoch.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from densenet121 import EpochSampler, TrainConfig, load_model, training_datasets
from densenet121.network import build


def accuracy(model: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]]) -> float:
    """Share of the images that are classified correctly."""
    model.eval()
    right, total = 0, 0
    with torch.inference_mode():
        for images, labels in loader:
            logits = model(images.contiguous(memory_format=torch.channels_last))
            right += int((logits.argmax(dim=1) == labels).sum())
            total += len(labels)
    return right / total


def main(arguments: Sequence[str] | None = None) -> float | None:
    """Train, print the loss and the accuracy of each epoch, and return the last accuracy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--net", default="densenet121")
    parser.add_argument("--pretrained")
    given = parser.parse_args(arguments)

    # The settings say how images are read and augmented, and what the loss is.
    config = TrainConfig.from_recipe(
        "scratch_small", data_dir=given.folder, net=given.net, image_size=given.image_size
    )
    training, validation = training_datasets(config)
    sampler = EpochSampler(training)  # the order, and the random numbers of each epoch
    loader = DataLoader(
        training, given.batch_size, sampler=sampler, drop_last=True, num_workers=given.workers
    )

    model = build(given.net, num_classes=len(training.class_names))
    if given.pretrained:  # of the same network; its head stays behind
        weights = load_model(given.pretrained, net=given.net).state_dict()
        body = {name: value for name, value in weights.items() if "classifier" not in name}
        model.load_state_dict(body, strict=False)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=given.epochs * len(loader)
    )

    correct = None
    for epoch in range(given.epochs):
        sampler.set_epoch(epoch)
        model.train()
        losses = []
        for images, labels in loader:
            optimizer.zero_grad()
            logits = model(images.contiguous(memory_format=torch.channels_last))
            loss = training.task.loss(logits, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        text = f"epoch {epoch}: loss {torch.stack(losses).mean():.3f}"
        if validation:
            correct = accuracy(model, DataLoader(validation, given.batch_size))
            text += f", {100 * correct:.2f} % of {len(validation)} correct"
        print(text, flush=True)
    torch.save(model.state_dict(), "plain.pth")
    return correct


if __name__ == "__main__":
    main()
