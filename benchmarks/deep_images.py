"""How long 16-bit PNG and DICOM take to decode, beside 8-bit PNG of the same images.

    python benchmarks/deep_images.py [SIDE] [REPETITIONS]

Images are made: smooth with noise, 12 bits, SIDE x SIDE (default 1024). One thread; the median and
the spread (smallest and largest) of the repetitions, in milliseconds an image.
"""

import io
import statistics
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np

from densenet121.datasets.decoding import decode
from densenet121.datasets.reading import make_reading


def samples(side: int) -> np.ndarray:
    """A 12-bit image with the noise of a sensor."""
    rng = np.random.default_rng(0)
    slope = np.add.outer(np.arange(side), np.arange(side)) * 3500 // (2 * side)
    return np.clip(slope + rng.normal(200, 20, (side, side)), 0, 4095).astype(np.uint16)


def dicom(pixels: np.ndarray, *, compressed: bool) -> bytes:
    """A DICOM file with a window; uncompressed or RLE."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    if compressed:
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"
        dataset.compress(RLELossless, generate_instance_uid=False)
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


def milliseconds(run: Callable[[], object], repetitions: int) -> tuple[float, float, float]:
    """Median, smallest and largest time of a call."""
    run()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times), min(times), max(times)


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    repetitions = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    cv2.setNumThreads(1)
    deep = samples(side)
    png = cv2.imencode(".png", deep)[1].tobytes()
    small = cv2.imencode(".png", (deep >> 4).astype(np.uint8))[1].tobytes()
    cases: dict[str, tuple[bytes, int, str | None]] = {
        "8-bit PNG": (small, 8, None),
        "16-bit PNG, high byte": (png, 8, None),
        "16-bit PNG, window 0,4095": (png, 16, "0,4095"),
        "16-bit PNG, percentile:0.5,99.5": (png, 16, "percentile:0.5,99.5"),
        "DICOM, its window": (dicom(deep, compressed=False), 8, None),
        "DICOM, window 0,4095": (dicom(deep, compressed=False), 8, "0,4095"),
        "DICOM, RLE": (dicom(deep, compressed=True), 8, None),
    }
    print(f"{side} x {side} pixels, {repetitions} repetitions, one thread")
    for name, (data, depth, window) in cases.items():
        reading = make_reading(depth, window)
        median, least, most = milliseconds(
            lambda d=data, r=reading: decode(d, reading=r), repetitions
        )
        print(f"{name:32} {median:7.1f} ms ({least:.1f} to {most:.1f}), {len(data) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
