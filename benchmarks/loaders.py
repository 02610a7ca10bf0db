"""Data loading by other libraries, from image files to normalised batches; a script of its own.

``python loaders.py JSON`` runs in an environment that need not have this package. Each line of
standard input, the number of a pass, is answered with the seconds and the images of one pass over
the data. All do the original's training transforms: a random crop of 0.08 to 1 of the area, a
mirror, brightness, contrast and saturation by up to 0.4, ImageNet's mean and standard deviation.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE, RATIO, JITTER = (0.08, 1.0), (0.75, 1.333), (0.4, 0.4, 0.4)

# A pass over the data: the number of images in each batch.
Pass = Callable[[], Iterator[int]]


def main() -> None:
    """Serve one side."""
    spec = json.loads(sys.argv[1])
    out, sys.stdout = sys.stdout, sys.stderr  # what the libraries print is no answer
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: spec["workers"]])
    make: dict[str, Callable[[dict[str, Any]], tuple[Pass, str]]] = {
        "torchvision-v1": torchvision_v1,
        "torchvision-v2": torchvision_v2,
        "dali": dali,
        "mindspore": mindspore,
    }
    run, note = make[spec["side"]](spec)
    print(json.dumps({"note": note}), file=out, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        images = sum(run())
        answer = {"seconds": time.perf_counter() - start, "images": images}
        print(json.dumps(answer), file=out, flush=True)


def torchvision_v1(spec: dict[str, Any]) -> tuple[Pass, str]:
    """Pillow and torchvision's first transforms, as its reference script has them."""
    T = importlib.import_module("torchvision.transforms")
    steps = [
        T.RandomResizedCrop(tuple(spec["size"]), SCALE, RATIO),
        T.RandomHorizontalFlip(),
        T.ColorJitter(*JITTER),
        T.ToTensor(),
        T.Normalize(MEAN, STD),
    ]
    return _data_loader(spec, T.Compose(steps))


def torchvision_v2(spec: dict[str, Any]) -> tuple[Pass, str]:
    """Torchvision's second transforms on tensors, decoded by torchvision."""
    torch = importlib.import_module("torch")
    T = importlib.import_module("torchvision.transforms.v2")
    io = importlib.import_module("torchvision.io")
    steps = [
        T.RandomResizedCrop(tuple(spec["size"]), SCALE, RATIO, antialias=True),
        T.RandomHorizontalFlip(),
        T.ColorJitter(*JITTER),
        T.ToDtype(torch.float32, scale=True),
        T.Normalize(MEAN, STD),
    ]

    def load(path: str) -> Any:
        return io.decode_image(path, io.ImageReadMode.RGB)

    return _data_loader(spec, T.Compose(steps), load)


def _data_loader(spec: dict[str, Any], transform: Any, load: Any = None) -> tuple[Pass, str]:
    """Torch's DataLoader over torchvision's ImageFolder; one worker works in the main process."""
    torch = importlib.import_module("torch")
    torchvision = importlib.import_module("torchvision")
    torch.set_num_threads(1)
    more = {"loader": load} if load else {}
    dataset = torchvision.datasets.ImageFolder(spec["data_dir"], transform, **more)
    workers = spec["workers"] if spec["workers"] > 1 else 0
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=spec["batch_size"],
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def run() -> Iterator[int]:
        for images, _ in loader:
            yield len(images)

    return run, f"torchvision {torchvision.__version__}, torch {torch.__version__}"


def dali(spec: dict[str, Any]) -> tuple[Pass, str]:
    """NVIDIA DALI on the CPU: decoding of the crop alone, fused."""
    nvidia_dali = importlib.import_module("nvidia.dali")
    fn = importlib.import_module("nvidia.dali.fn")
    types = importlib.import_module("nvidia.dali.types")
    height, width = spec["size"]
    pipeline = nvidia_dali.Pipeline(
        batch_size=spec["batch_size"], num_threads=spec["workers"], device_id=None, seed=1
    )
    with pipeline:
        data, _ = fn.readers.file(file_root=spec["data_dir"], random_shuffle=True, name="r")
        images = fn.decoders.image_random_crop(
            data, device="cpu", random_area=SCALE, random_aspect_ratio=RATIO, num_attempts=10
        )
        images = fn.resize(images, resize_x=width, resize_y=height, antialias=False)
        images = fn.color_twist(
            images,
            brightness=fn.random.uniform(range=(0.6, 1.4)),
            contrast=fn.random.uniform(range=(0.6, 1.4)),
            saturation=fn.random.uniform(range=(0.6, 1.4)),
        )
        images = fn.crop_mirror_normalize(
            images,
            mirror=fn.random.coin_flip(),
            dtype=types.FLOAT,
            mean=[255 * m for m in MEAN],
            std=[255 * s for s in STD],
        )
        pipeline.set_outputs(images)
    pipeline.build()
    count = pipeline.epoch_size("r")

    def run() -> Iterator[int]:
        done = 0
        while done < count:
            (images,) = pipeline.run()
            done += len(images)
            yield len(images)

    return run, f"DALI {nvidia_dali.__version__} on the CPU"


def mindspore(spec: dict[str, Any]) -> tuple[Pass, str]:
    """MindSpore's dataset engine, as the original's classification.py calls it."""
    library = importlib.import_module("mindspore")
    ds = importlib.import_module("mindspore.dataset")
    vision = importlib.import_module("mindspore.dataset.vision")
    ds.config.set_num_parallel_workers(spec["workers"])
    dataset = ds.ImageFolderDataset(spec["data_dir"], shuffle=True)
    steps = [
        vision.RandomCropDecodeResize(list(spec["size"]), scale=SCALE, ratio=RATIO),
        vision.RandomHorizontalFlip(prob=0.5),
        vision.RandomColorAdjust(brightness=0.4, contrast=0.4, saturation=0.4),
        vision.Normalize(mean=[255 * m for m in MEAN], std=[255 * s for s in STD]),
        vision.HWC2CHW(),
    ]
    dataset = dataset.map(steps, "image", num_parallel_workers=spec["workers"])
    dataset = dataset.batch(spec["batch_size"])

    def run() -> Iterator[int]:
        for images, _ in dataset.create_tuple_iterator(num_epochs=1, output_numpy=True):
            yield len(images)

    return run, f"MindSpore {library.__version__}"


if __name__ == "__main__":
    main()
