"""The published sizes of the network, by name."""

from collections.abc import Callable

from densenet121.network.densenet import DenseNet
from densenet121.network.layers import Variant
from densenet121.utils.errors import InputError


def densenet121(
    num_classes: int = 1000, *, variant: Variant = "paper", in_channels: int = 3
) -> DenseNet:
    """DenseNet-121: 7,978,856 parameters at 1000 classes (the paper, table 1)."""
    return DenseNet(
        growth_rate=32,
        block_config=(6, 12, 24, 16),
        num_init_features=64,
        num_classes=num_classes,
        variant=variant,
        in_channels=in_channels,
    )


def densenet161(
    num_classes: int = 1000, *, variant: Variant = "paper", in_channels: int = 3
) -> DenseNet:
    """DenseNet-161, the wide one (k = 48): 28,681,000 parameters at 1000 classes."""
    return DenseNet(
        growth_rate=48,
        block_config=(6, 12, 36, 24),
        num_init_features=96,
        num_classes=num_classes,
        variant=variant,
        in_channels=in_channels,
    )


def densenet169(
    num_classes: int = 1000, *, variant: Variant = "paper", in_channels: int = 3
) -> DenseNet:
    """DenseNet-169: 14,149,480 parameters at 1000 classes (the paper, table 1)."""
    return DenseNet(
        growth_rate=32,
        block_config=(6, 12, 32, 32),
        num_init_features=64,
        num_classes=num_classes,
        variant=variant,
        in_channels=in_channels,
    )


def densenet201(
    num_classes: int = 1000, *, variant: Variant = "paper", in_channels: int = 3
) -> DenseNet:
    """DenseNet-201: 20,013,928 parameters at 1000 classes (the paper, table 1)."""
    return DenseNet(
        growth_rate=32,
        block_config=(6, 12, 48, 32),
        num_init_features=64,
        num_classes=num_classes,
        variant=variant,
        in_channels=in_channels,
    )


def densenet264(
    num_classes: int = 1000, *, variant: Variant = "paper", in_channels: int = 3
) -> DenseNet:
    """DenseNet-264: 33,337,704 parameters at 1000 classes (the paper, table 1)."""
    return DenseNet(
        growth_rate=32,
        block_config=(6, 12, 64, 48),
        num_init_features=64,
        num_classes=num_classes,
        variant=variant,
        in_channels=in_channels,
    )


def densenet100(
    num_classes: int = 10, *, variant: Variant = "paper", in_channels: int = 3
) -> DenseNet:
    """DenseNet-BC (L = 100, k = 12) for 32 x 32 images: 769,162 parameters at 10 classes.

    Raises:
        InputError: ``variant`` is ``model_zoo``: the original's densenet100 pools by average too.
    """
    if variant != "paper":
        raise InputError(
            f'densenet100 has no variant "{variant}": the model zoo\'s densenet100 also uses '
            "average pooling; pass `variant` paper"
        )
    return _for_small_images(16, num_classes, in_channels)


def densenet40(
    num_classes: int = 10, *, variant: Variant = "paper", in_channels: int = 3
) -> DenseNet:
    """DenseNet-BC (L = 40, k = 12) for 32 x 32 images: 176,122 parameters at 10 classes.

    A quarter of densenet100's multiplications: for a first look, and where training must be quick.

    Raises:
        InputError: ``variant`` is ``model_zoo``, which has no such network.
    """
    if variant != "paper":
        raise InputError(
            f'densenet40 has no variant "{variant}": the model zoo has no such network; '
            "pass `variant` paper"
        )
    return _for_small_images(6, num_classes, in_channels)


def _for_small_images(layers_per_block: int, num_classes: int, in_channels: int) -> DenseNet:
    """The paper's section 4.1: three equal dense blocks on the full 32 x 32, without a pool."""
    return DenseNet(
        growth_rate=12,
        block_config=(layers_per_block,) * 3,
        num_init_features=24,
        num_classes=num_classes,
        stem="cifar",
        in_channels=in_channels,
    )


NETWORKS: dict[str, Callable[..., DenseNet]] = {
    "densenet121": densenet121,
    "densenet161": densenet161,
    "densenet169": densenet169,
    "densenet201": densenet201,
    "densenet264": densenet264,
    "densenet100": densenet100,
    "densenet40": densenet40,
}

# Those for images of 32 x 32, which no other program has under ImageNet's names.
FOR_SMALL_IMAGES = ("densenet100", "densenet40")


def build(
    net: str, *, num_classes: int, variant: Variant = "paper", in_channels: int = 3
) -> DenseNet:
    """Return the network called ``net``, a key of NETWORKS.

    Raises:
        InputError: no network has this name, or it has no such variant.
    """
    if net not in NETWORKS:
        raise InputError(f'there is no network "{net}"; choose one of {", ".join(NETWORKS)}')
    return NETWORKS[net](num_classes, variant=variant, in_channels=in_channels)
