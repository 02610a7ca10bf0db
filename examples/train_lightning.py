"""Train with Lightning's Trainer: the images, the fast network and the loss of densenet121.

pip install lightning
python examples/train_lightning.py FOLDER [--epochs N] [--image_size N] [--net NAME]

FOLDER is whatever `densenet121 train --data_dir` takes. Lightning calls the sampler's `set_epoch`.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from densenet121 import EpochSampler, TorchDataset, TrainConfig, training_datasets
from densenet121.network import build


class Classifier(lightning.LightningModule):
    """A DenseNet, with the loss of the images' task."""

    def __init__(self, net: str, images: TorchDataset, lr: float) -> None:
        super().__init__()
        self.model = build(net, num_classes=len(images.class_names))
        self.model.to(memory_format=torch.channels_last)
        self.task, self.lr = images.task, lr

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.contiguous(memory_format=torch.channels_last))

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        images, labels = batch
        loss = self.task.loss(self(images), labels)
        self.log("train/loss", loss, batch_size=len(images))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        images, labels = batch
        right = (self(images).argmax(dim=1) == labels).float().mean()
        self.log("val/top1", right, prog_bar=True, batch_size=len(images))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.05)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def main(arguments: Sequence[str] | None = None) -> dict[str, float]:
    """Train, and return Lightning's metrics of the last epoch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--net", default="densenet121")
    given = parser.parse_args(arguments)
    config = TrainConfig.from_recipe(
        "scratch_small", data_dir=given.folder, net=given.net, image_size=given.image_size
    )
    training, validation = training_datasets(config)
    loader = DataLoader(
        training,
        given.batch_size,
        sampler=EpochSampler(training),
        drop_last=True,
        num_workers=given.workers,
        persistent_workers=given.workers > 0,
    )
    # On several devices: EpochSampler(training, rank, world_size) and use_distributed_sampler off.
    trainer = lightning.Trainer(
        max_epochs=given.epochs,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    model = Classifier(given.net, training, lr=1e-3)
    trainer.fit(model, loader, DataLoader(validation, given.batch_size) if validation else None)
    torch.save(model.model.state_dict(), "lightning.pth")
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(main())
