"""lr-find: formulas, suggestions for curves with a planted descent, and the steps of train."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densenet121.cli import main
from densenet121.commands.lr_find import draw, lr_find, suggestion
from densenet121.config import LrFindConfig
from densenet121.engine.lr_range import LrRange, find_lr, rates_between, smooth
from densenet121.engine.train import train
from densenet121.runs.metrics import read_rows
from densenet121.utils.errors import InputError

from helpers.commands import no_file_beyond
from helpers.images import write_classes
from helpers.ranks import SMALL as RANK_FLAGS
from helpers.ranks import start_ranks
from helpers.training import train_config
from helpers.weights import write_weights

SMALL: dict[str, Any] = {
    "net": "densenet40",
    "image_size": 16,
    "per_batch_size": 5,
    "workers": 1,
    "amp": "fp32",
}


def config(image_folder: Path, folder: Path, **flags: Any) -> LrFindConfig:
    given = SMALL | {"data_dir": str(image_folder), "output": str(folder / "lr.png"), "steps": 30}
    return LrFindConfig(**(given | flags))


def test_images_of_which_none_can_be_read_are_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    data_dir = write_classes(tmp_path / "data", ["x", "y"], 2)
    for file in data_dir.rglob("*.png"):
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InputError, match=r"too few images can be read for one step; .*00\d\.png"):
        find_lr(config(data_dir, tmp_path, on_bad_image="skip"))


def test_skipped_images_are_named_and_end_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = write_classes(tmp_path / "data", ["x", "y"], 10)
    bad = next(data_dir.rglob("*003.png"))
    bad.write_bytes(b"no image")
    flags = ["--net", "densenet40", "--image_size", "16", "--per_batch_size", "5"]
    flags += ["--workers", "1", "--steps", "20", "--output", str(tmp_path / "lr.png")]
    command = ["lr-find", "--data_dir", str(data_dir), *flags]
    assert main([*command, "--on_bad_image", "skip"]) == 1
    said = capsys.readouterr()
    assert f"densenet121: {bad}: not a readable image" in said.err
    assert said.err.count(str(bad)) == 1
    assert "lr.png" in said.out


def test_images_without_a_known_label_are_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    data_dir = write_classes(tmp_path / "data", ["x"], 9)
    names = sorted(str(file.relative_to(tmp_path)) for file in data_dir.rglob("*.png"))
    (tmp_path / names[0]).write_bytes(b"no image")  # the only one with labels
    (tmp_path / names[1]).write_bytes(b"no image")
    rows = ["path,a", f"{names[0]},1", f"{names[1]},0", *(f"{name}," for name in names[2:])]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    task: dict[str, Any] = {"task": "multilabel", "missing": "ignore", "per_batch_size": 3}
    with pytest.raises(InputError, match=r"no label is known of the images of 3 epochs.*2 cannot"):
        find_lr(config(tmp_path / "labels.csv", tmp_path, on_bad_image="skip", **task))


def test_mixup_lasts_through_the_test_whatever_max_epoch_is(
    image_folder: Path, tmp_path: Path
) -> None:
    """It ends after some epochs of a run; in the test the loss would fall there at any rate."""
    steps = {"steps": 20, "mixup": 5.0, "mix_off_epochs": 1}
    short, long = (
        find_lr(config(image_folder, tmp_path, max_epoch=epochs, **steps)) for epochs in (2, 100)
    )
    assert np.array_equal(short.losses, long.losses)


def test_small_images_stay_small_through_the_test(image_folder: Path, tmp_path: Path) -> None:
    sizes = {"steps": 20, "image_size": 32, "small_size": 16, "max_epoch": 100}
    few, all_epochs = (
        find_lr(config(image_folder, tmp_path, small_epochs=epochs, **sizes)) for epochs in (1, 100)
    )
    assert np.array_equal(few.losses, all_epochs.losses)


def test_the_rates_are_a_geometric_series_with_both_ends() -> None:
    rates = rates_between(1e-4, 1.0, 5)
    assert np.allclose(rates, [1e-4, 1e-3, 1e-2, 1e-1, 1.0], rtol=1e-12)


def test_the_smoothed_loss_is_an_exponential_mean_without_bias() -> None:
    losses = [3.0, 1.0, 2.0]
    weights = [[1.0], [0.95, 1.0], [0.95**2, 0.95, 1.0]]
    expected = [np.average(losses[: len(w)], weights=w) for w in weights]
    assert np.allclose(smooth(losses), expected, rtol=1e-12)
    assert np.allclose(smooth([2.5] * 50), 2.5, rtol=1e-12)


def curve(noise: float) -> LrRange:
    """Flat at 2, falling as a logistic step around 0.01 to 1, rising from 0.3 on."""
    rates = rates_between(1e-5, 1.0, 200)
    x = np.log10(rates)
    losses = 1 + 1 / (1 + np.exp(6 * (x + 2))) + 20 * np.maximum(x + 0.5, 0) ** 2
    losses = losses + noise * np.random.default_rng(1).normal(size=200)
    return LrRange(rates, losses, smooth(losses.tolist()), diverged=False)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1])
def test_a_planted_descent_is_found(noise: float) -> None:
    found = curve(noise)
    assert found.fell and found.is_clear
    assert 0.004 < found.steepest < 0.025  # planted at 0.01
    assert 0.01 < found.tenth_of_lowest < 0.08  # the lowest is before 0.3, smoothed a little later


def test_noise_alone_is_no_clear_fall() -> None:
    rates = rates_between(1e-5, 1.0, 100)
    clear = []
    for seed in range(50):
        losses = 2 + 0.1 * np.random.default_rng(seed).normal(size=100)
        clear.append(LrRange(rates, losses, smooth(losses.tolist()), diverged=False).is_clear)
    assert np.mean(clear) < 0.2
    rising = 1 + np.linspace(0, 1, 100)
    assert not LrRange(rates, rising, smooth(rising.tolist()), diverged=True).fell


def test_pretrained_weights_are_spared(image_folder: Path, tmp_path: Path) -> None:
    found = curve(0.0)
    scratch = config(image_folder, tmp_path)
    tuned = config(image_folder, tmp_path, pretrained="w.safetensors")
    assert suggestion(scratch, found) == found.steepest
    assert suggestion(tuned, found) == min(found.steepest, found.tenth_of_lowest)
    assert draw(found).startswith(b"\x89PNG")


def test_it_writes_a_plot_and_numbers_and_nothing_else(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", class_names=("a", "b", "c", "d"))
    before = weights.read_bytes()
    settings = config(image_folder, tmp_path, pretrained=str(weights), lr_max=100.0, steps=20)
    result = lr_find(settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lr.csv", "lr.png", "w.safetensors"]
    assert weights.read_bytes() == before
    assert result.plot.read_bytes().startswith(b"\x89PNG")
    with result.table.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["lr"]) for row in rows] == result.found.rates.tolist()
    assert [float(row["loss"]) for row in rows] == result.found.losses.tolist()
    assert [float(row["smoothed_loss"]) for row in rows] == result.found.smoothed.tolist()
    printed = capsys.readouterr().out
    assert f"tried {len(rows)} learning rates from 1e-05 to" in printed and "lr.csv" in printed


def test_its_own_numbers_are_replaced(image_folder: Path, tmp_path: Path) -> None:
    settings = config(image_folder, tmp_path, steps=20)
    (tmp_path / "lr.csv").write_text("step,lr,loss,smoothed_loss\n0,1,2,3\n")
    result = lr_find(settings)
    assert len(result.table.read_text().splitlines()) == len(result.found.rates) + 1


def test_on_a_full_disk_the_numbers_and_the_plot_of_before_stay(
    image_folder: Path, tmp_path: Path
) -> None:
    before = {"lr.csv": b"step,lr,loss,smoothed_loss\n0,1,2,3\n", "lr.png": b"earlier"}
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    with no_file_beyond(10_000), pytest.raises(OSError, match="File too large"):
        lr_find(config(image_folder, tmp_path, steps=20))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_it_stops_where_the_loss_diverges(image_folder: Path, tmp_path: Path) -> None:
    found = lr_find(config(image_folder, tmp_path, lr_min=0.1, lr_max=1e6)).found
    assert found.diverged and len(found.rates) < 30
    assert (found.smoothed[:-1] <= 4 * np.minimum.accumulate(found.smoothed[:-1])).all()


def test_the_steps_are_those_of_train(image_folder: Path, tmp_path: Path) -> None:
    """With a constant rate of 0 the losses of both are those of the initial weights."""
    found = lr_find(config(image_folder, tmp_path, lr_min=1e-30, lr_max=1e-29, steps=20)).found
    flags = {"lr": 0.0, "amp": "fp32", "log_interval": 1, "per_batch_size": SMALL["per_batch_size"]}
    train(train_config(image_folder, tmp_path / "run", **flags))
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert found.losses[: len(losses)].tolist() == losses


def test_a_step_without_a_known_label_says_nothing(image_folder: Path, tmp_path: Path) -> None:
    """Of 12 images 9 have blank cells; a step of two images often has no known label."""
    images = sorted((image_folder / "train").rglob("*.png"))[:12]
    cells = ["1", "0", "1", *[""] * 9]
    rows = [f"{image},{cell}" for image, cell in zip(images, cells, strict=True)]
    (tmp_path / "train.csv").write_text("\n".join(["path,sick", *rows]) + "\n")
    flags = {"task": "multilabel", "missing": "ignore", "lr_min": 1e-9, "lr_max": 1e-8}
    settings = config(tmp_path / "train.csv", tmp_path, per_batch_size=2, steps=20, **flags)
    found = lr_find(settings).found
    assert len(found.losses) == 20 and (found.losses > 0).all()


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_workers(image_folder: Path, tmp_path: Path) -> None:
    flags = {"sampler": "balanced", "class_weights": "sqrt"}
    found = [
        lr_find(config(image_folder, tmp_path, workers=workers, steps=20, **flags)).found
        for workers in (0, 2)
    ]
    assert found[0].losses.tolist() == found[1].losses.tolist()


def test_a_recipe_of_train_is_taken(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    command = ["lr-find", "--recipe", "finetune", "--data_dir", str(image_folder)]
    command += ["--pretrained", str(weights), "--output", str(tmp_path / "lr.png")]
    command += ["--net", "densenet40", "--steps", "20", "--workers", "0", "--lr_max", "1e-3"]
    assert main(command) in (0, 1)
    assert "tried 20 learning rates from 1e-05 to 0.001 (all steps done)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--lr_min", "0"], 2, "--lr_min must be above 0 and below --lr_max, got 0"),
        (["--lr_min", "1", "--lr_max", "0.1"], 2, "--lr_min must be above 0 and below --lr_max"),
        (["--steps", "5"], 2, "--steps must be at least 20 steps, got 5"),
        (["--output", "lr.csv"], 2, "--output must be a .png file, got lr.csv"),
        (["--resume", "auto"], 2, "--resume has no place in lr-find"),
        (["--class_weights", "nowhere.csv"], 1, "there is no file"),
        (["--pretrained", "nowhere"], 1, "nowhere: there is no such weights file"),
        (["--output", "no/such/folder/lr.png"], 1, "there is no folder"),
    ],
)
def test_a_wrong_setting_is_one_line(
    flags: list[str],
    status: int,
    message: str,
    image_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--data_dir", str(image_folder), "--net", "densenet40", "--image_size", "16"]
    assert main(["lr-find", *given, *flags]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert list(tmp_path.iterdir()) == []


def test_several_ranks_are_refused(image_folder: Path, tmp_path: Path) -> None:
    command = ["-m", "densenet121", "lr-find", "--data_dir", image_folder, *RANK_FLAGS]
    processes, output = start_ranks(2, *command, folder=tmp_path)
    assert [process.wait() for process in processes] == [2, 2]
    assert "lr-find runs in one process" in output.read_text()
