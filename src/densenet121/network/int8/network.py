"""A network of 8-bit integers, for inference on a CPU."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densenet121.native.network import Kernels, kernels
from densenet121.native.network.structures import Int8Network as Arguments
from densenet121.network.densenet import DenseNet
from densenet121.network.fused import classify, prepare_classifier, runs_plain
from densenet121.network.int8.packing import pack
from densenet121.network.int8.plain import plain_features
from densenet121.utils.errors import InputError


class Int8Network(nn.Module):
    """A quantised ``DenseNet``: normalised images ``(N, C, H, W)`` to logits ``(N, K)``.

    Everything before the classifier is computed in integers, with the same bits on every CPU; the
    classifier in float32. It cannot be trained.

    Attributes:
        tensors: the result of ``quantise_network``.
        min_image_size: smallest height and width, in pixels.
        num_classes: number of logits.
        num_features: number of input channels of the classifier.
        variant: paper or model_zoo.
    """

    def __init__(self, tensors: Mapping[str, Tensor], like: DenseNet) -> None:
        """``like`` is a network of the same shape, of which only settings are read."""
        super().__init__()
        self.tensors = dict(tensors)
        self.min_image_size = like.min_image_size
        self.num_classes = like.num_classes
        self.num_features = like.num_features
        self.variant = like.variant
        self._block_config: Sequence[int] = like.block_config
        self._stride = 2 if like.stem == "imagenet" else 1
        self._pooled = like.stem == "imagenet"
        self.classifier = nn.Linear(like.num_features, like.num_classes)
        self.classifier.weight.data = self.tensors["classifier.weight"]
        self.classifier.bias.data = self.tensors["classifier.bias"]
        self.requires_grad_(False)
        self._pack_for_this_machine()

    def __getstate__(self) -> dict[str, Any]:
        """Without the packed weights: they lie at addresses of this process."""
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._pack_for_this_machine()

    def _pack_for_this_machine(self) -> None:
        found = kernels()
        self._pack(found.int8_patch_columns if isinstance(found, Kernels) else 0)

    def _pack(self, patch_columns: int) -> None:
        self._packed = pack(
            self.tensors,
            self._block_config,
            stride=self._stride,
            averages=self.variant == "paper",
            pooled=self._pooled,
            patch_columns=patch_columns,
        )

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, K)`` float32, on the device of the images.

        Raises:
            InputError: the images have other channels, or are too small.
        """
        self._check(images)
        logits = self._in_one_call(images.detach().cpu().float())
        if logits is not None:
            return logits.to(images.device)
        features = self.pooled(images).to(self.classifier.weight.device)
        with torch.autocast(features.device.type, enabled=False):
            logits = classify(self.classifier, features)
        return logits.to(images.device)

    def _in_one_call(self, x: Tensor) -> Tensor | None:
        """The logits, or None if the classifier needs a call of its own."""
        found = kernels()
        if not isinstance(found, Kernels) or runs_plain(x):
            return None
        features = torch.empty((len(x), self.num_features), dtype=torch.float32, device="cpu")
        prepared = prepare_classifier(self.classifier, features)
        if prepared is None:
            return None
        arguments = self._arguments(x, features)
        arguments.classifier = prepared.arguments
        found.run("int8_network_run", arguments)
        return prepared.logits

    @torch.no_grad()
    def pooled(self, images: Tensor) -> Tensor:
        """The classifier's input, ``(N, num_features)`` float32 on the CPU.

        Raises:
            InputError: the images have other channels, or are too small.
        """
        self._check(images)
        x = images.detach().cpu().float()
        found = kernels()
        if isinstance(found, Kernels) and min(x.shape) > 0:
            return self._by_kernels(found, x)
        return plain_features(
            self.tensors,
            self._block_config,
            x,
            stride=self._stride,
            averages=self.variant == "paper",
            pool_padding=self._pool_padding(*self._conv0_size(x)) if self._pooled else None,
        )

    def _check(self, images: Tensor) -> None:
        """Refuse what the kernels would read beyond its end, or divide by the size of."""
        channels, least = self.tensors["features.conv0.weight"].shape[1], self.min_image_size
        if images.dim() != 4 or images.shape[1] != channels or min(images.shape[2:]) < least:
            raise InputError(
                f"images must be (N, {channels}, H, W) of at least {least} x {least} pixels, got "
                f"{tuple(images.shape)}"
            )

    def _conv0_size(self, x: Tensor) -> tuple[int, int]:
        first = self._packed.arguments.first
        height, width = (
            (size + 2 * first.padding - first.kernel) // first.stride + 1 for size in x.shape[2:]
        )
        return height, width

    def _pool_padding(self, height: int, width: int) -> tuple[int, int]:
        return (1, 1) if self.variant == "paper" else (height % 2, width % 2)

    def _by_kernels(self, found: Kernels, x: Tensor) -> Tensor:
        features = torch.empty((len(x), self.num_features), dtype=torch.float32, device="cpu")
        found.run("int8_network_run", self._arguments(x, features))
        return features

    def _arguments(self, x: Tensor, features: Tensor) -> Arguments:
        arguments = Arguments.from_buffer_copy(self._packed.arguments)
        first, pool = arguments.first, arguments.pool
        first.images, first.channels, first.height, first.width = x.shape
        first.x, first.x_strides[:] = x.data_ptr(), x.stride()
        if self._pooled:
            pool.height, pool.width = self._conv0_size(x)
            pool.pad_top, pool.pad_left = self._pool_padding(pool.height, pool.width)
            pool.out_height, pool.out_width = (pool.height + 1) // 2, (pool.width + 1) // 2
        arguments.threads, arguments.y = torch.get_num_threads(), features.data_ptr()
        return arguments
