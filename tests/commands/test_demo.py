"""The demonstration: real digits, written out, learnt, and reported."""

from pathlib import Path

import pytest
from sklearn.datasets import load_digits

from densenet121.commands.demo import write_digits
from densenet121.datasets.decoding import read_image
from densenet121.datasets.sources.folder import scan

from helpers.commands import run_command


def test_every_digit_is_written_once_and_every_fourth_is_held_back(tmp_path: Path) -> None:
    write_digits(tmp_path)
    train, val = scan(tmp_path / "train"), scan(tmp_path / "val")
    assert (len(train), len(val)) == (1347, 450)
    assert train.class_names == val.class_names == tuple("0123456789")
    numbers = {Path(path).stem for split in (train, val) for path in split.paths}
    assert len(numbers) == 1797
    digits = load_digits()
    for split in (train, val):
        for path, label in list(zip(split.paths, split.labels, strict=True))[::97]:
            pixels = read_image(split.root / path)
            index = int(Path(path).stem)
            assert digits.target[index] == label
            # Each of the 8 x 8 pixels became 4 x 4, whose mean is near its own grey level.
            small = pixels[..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3))
            assert abs(small - digits.images[index] / 16 * 255).mean() < 20


@pytest.mark.slow
def test_the_demo_reaches_98_percent_and_ends_with_where_everything_is(tmp_path: Path) -> None:
    finished = run_command("demo", "--output_dir", "demo", cwd=tmp_path, timeout_seconds=600)
    assert finished.returncode == 0, finished.stderr
    last = finished.stdout.splitlines()[-1]
    correct, total = last.split()[0], last.split()[2]
    assert int(correct) / int(total) >= 0.98
    assert str(tmp_path / "demo" / "run" / "report.html") in last
    assert (tmp_path / "demo" / "run" / "report.html").stat().st_size > 50_000
