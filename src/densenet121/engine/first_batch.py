"""What the network sees first, as one image for the trackers."""

import math

import cv2
import numpy as np

from densenet121.datasets.preparation import training_images
from densenet121.datasets.sampler import training_batches
from densenet121.engine.plan import EpochPlan

_MOST = 16  # images
_GAP = 2  # pixels between two


def draw_first_batch(plan: EpochPlan) -> bytes:
    """The first images of the first batch after augmentation, before mixing, as a PNG image.

    Raises:
        InputError: one cannot be read.
    """
    transform = plan.augment_small if plan.small_epochs else plan.augment
    order = plan.order(0)
    draws = training_batches(order, plan.step_size, world_size=plan.runtime.process.world_size)[0]
    prepare = training_images(plan.dataset, transform, plan.seed, 0)
    count = min(_MOST, len(draws))
    columns = math.ceil(math.sqrt(count))
    height, width = transform.height + _GAP, transform.width + _GAP
    sheet = np.full((math.ceil(count / columns) * height, columns * width, 3), 255, np.uint8)
    for place, draw in enumerate(draws[:count].tolist()):
        image = np.empty((transform.height, transform.width, 3), np.uint8)
        prepare(draw, image)
        top, left = place // columns * height, place % columns * width
        sheet[top : top + transform.height, left : left + transform.width] = image
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(sheet[:-_GAP, :-_GAP, ::-1]))
    return encoded.tobytes()
