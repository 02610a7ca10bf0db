"""Test-time augmentation: the views of a prepared image whose probabilities are averaged."""

from torch import Tensor

# Number of views by the name of the setting `tta`.
VIEWS = {"none": 1, "flip": 2, "dihedral": 8, "ten_crop": 10}
CROPS = 5  # of ten_crop, one above the other in the prepared pixels


def views_of(images: Tensor, tta: str) -> list[Tensor]:
    """The views of a batch, each ``(N, H, W, 3)``; the first is the central crop as it is.

    flip adds the left-right flip; dihedral has the eight flips and quarter turns of a square;
    ten_crop has the centre, the four corners and the flips of all five (Krizhevsky et al. 2012).

    Args:
        images: prepared pixels ``(N, H, W, 3)``; for ten_crop ``(N, 5 * H, W, 3)``.
        tta: a name of ``VIEWS``.
    """
    if tta == "none":
        return [images]
    if tta == "ten_crop":
        own = list(images.chunk(CROPS, dim=1))
    elif tta == "dihedral":
        own = [images.rot90(turns, (1, 2)) for turns in range(4)]
    else:
        own = [images]
    return [view.contiguous() for view in (*own, *(view.flip(2) for view in own))]


def central(images: Tensor, tta: str) -> Tensor:
    """The central crop as it is, for what needs one view; ``images`` are those of ``views_of``."""
    return images.chunk(CROPS, dim=1)[0] if tta == "ten_crop" else images
