"""bench: real processes, by turns, with figures that belong together."""

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from densenet121.bench.compute import (
    Comparison,
    Side,
    as_json,
    compare,
    gigaflops_an_image,
    table,
)
from densenet121.bench.data import Loading, LoadingSide, loading_table
from densenet121.bench.scaling import measure_scaling, scaling_table
from densenet121.bench.scaling_model import Machine, bytes_an_image
from densenet121.bench.worker import step
from densenet121.config import BenchConfig
from densenet121.network import DenseNet, build, densenet100
from densenet121.utils.errors import UsageError

from helpers.commands import run_command
from helpers.images import draw


@pytest.mark.slow
def test_sides_are_measured_in_one_run_and_compared_with_ours() -> None:
    found = compare(
        BenchConfig(
            what="train",
            against="plain, convolutions",
            net="densenet100",
            image_size=32,
            per_batch_size=2,
            amp="fp32",
            threads=1,
            warmup=1,
            rounds=3,
        )
    )
    assert [side.name for side in found.sides] == ["ours", "plain", "convolutions"]
    for side in found.sides:
        assert 0 < side.low <= side.images_per_second <= side.high
        assert side.megabytes > 0
        assert side.peak_share is not None
        expected = side.images_per_second * found.gigaflops_an_image / found.peak_gigaflops
        assert side.peak_share == pytest.approx(expected)
    assert found.sides[0].ratio == 1
    assert found.settings["batch_size"] == 2
    assert json.loads(as_json(found))["sides"][1]["name"] == "plain"


def test_work_of_an_image_is_the_known_number_of_multiplications() -> None:
    # torchvision documents 2.83 * 10^9 multiply-adds for densenet121; the transitions, pooled
    # first, do a quarter of their 0.308 * 10^9.
    found = gigaflops_an_image(BenchConfig(what="infer"))
    assert found == pytest.approx(2 * (2.834 - 0.75 * 0.308), rel=0.01)


def test_table_has_a_line_for_each_side() -> None:
    ours = Side("ours", "kernels for avx2", 20.0, 19.0, 21.0, 1.0, 900.0, 0.5)
    other = Side("torchvision", "torchvision 0.29.1", 10.0, 9.0, 11.0, 2.0, 3000.0, None)
    settings = {
        "what": "train",
        "net": "densenet121",
        "batch_size": 32,
        "size": (224, 224),
        "amp": "bf16",
        "threads": 2,
        "rounds": 10,
    }
    lines = table(
        Comparison(settings, {"processor": "X", "torch": "2"}, 15.7, 400.0, (ours, other))
    ).splitlines()
    assert lines[4].split() == [
        "ours",
        "20.00",
        "19.00",
        "-",
        "21.00",
        "1.00",
        "900",
        "MB",
        "1.00",
        "50%",
    ]
    assert lines[5].split() == [
        "torchvision",
        "10.00",
        "9.00",
        "-",
        "11.00",
        "2.00",
        "3000",
        "MB",
        "0.30",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"against": "keras"}, "--against must name torchvision"),
        ({"against": "onnxruntime"}, "--against onnxruntime is for infer"),
        ({"against": "timm", "net": "densenet264"}, "not --net densenet264"),
        ({"image_size": 16}, "--image_size must be"),
        ({"rounds": 0}, "--rounds must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(flags: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BenchConfig(**flags)  # type: ignore[arg-type]


def test_side_that_is_not_installed_is_named_before_anything_runs() -> None:
    pytest.importorskip("torch")
    try:
        import timm  # type: ignore[import-not-found] # noqa: F401
    except ImportError:
        result = run_command("bench", "train", "--against", "timm")
        assert result.returncode == 2
        assert "--against timm: timm is not installed; `make bench` installs it" in result.stderr
    else:
        pytest.skip("timm is installed here")


def class_folders(root: Path) -> Path:
    """Sixteen JPEG images of two classes."""
    for label, name in enumerate(("a", "b")):
        (root / name).mkdir(parents=True)
        for index in range(8):
            cv2.imwrite(str(root / name / f"{index}.jpg"), draw(label, index, (120, 160)))
    return root


@pytest.mark.slow
def test_loading_is_measured_apart_from_training_and_with_it(tmp_path: Path) -> None:
    result = run_command(
        *("bench", "data", "--data_dir", class_folders(tmp_path / "data"), "--against", "plain"),
        *("--workers", 1, "--image_size", 32, "--per_batch_size", 4, "--net", "densenet100"),
        *("--warmup", 1, "--rounds", 2, "--amp", "fp32", "--json"),
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["pictures"][0] == 16
    ours, plain, compute, both = found["sides"]
    assert [side["name"] for side in (ours, plain, compute, both)] == [
        *("ours", "plain", "compute", "both")
    ]
    assert ours["ratio"] == 1 and plain["ratio"] > 0
    assert ours["note"].startswith("image kernel") or "not built" in ours["note"]
    assert plain["note"] == "DENSENET121_KERNELS is off"
    assert compute["ratio"] is None and compute["waited"] is None
    assert 0 < both["waited"] < 1
    assert all(0 < s["low"] <= s["images_per_second"] <= s["high"] for s in found["sides"])


def test_table_of_loading_names_every_side() -> None:
    sides = tuple(
        LoadingSide(name, f"note of {name}", 100.0, 90.0, 110.0, ratio, waited)
        for name, ratio, waited in (
            ("ours", 1.0, None),
            ("dali", 2.5, None),
            ("compute", None, None),
            ("both", None, 0.25),
        )
    )
    settings = {"batch_size": 32, "size": (224, 224), "workers": 1, "rounds": 3}
    text = loading_table(Loading(settings, (250, 107_777.5), sides))
    assert "250 images of 108 kB" in text and "dali: note of dali" in text
    assert "training waits for images for 25% of its time" in text
    assert any(line.split() == ["dali", "100.0", "90.0", "-", "110.0", "2.50"]
               for line in text.splitlines())  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["data"], 2, "bench data needs --data_dir"),
        (
            ["data", "--data_dir", "x", "--against", "timm"],
            2,
            "bench data is against",
        ),
        (["data", "--data_dir", "x", "--python", "dali"], 2, "--python must be LIBRARY=PATH"),
        (["train", "--data_dir", "x"], 2, "--data_dir is for bench data"),
        (["data", "--data_dir", "nowhere"], 1, "there is no such folder"),
        (
            ["data", "--data_dir", "DATA", "--against", "dali", "--python", "dali=/nowhere/python"],
            1,
            "there is no such program",
        ),
        (
            ["data", "--data_dir", "DATA", "--against", "dali"],
            1,
            "the process for dali ended: ModuleNotFoundError: No module named 'nvidia",
        ),
    ],
)
def test_wrong_use_of_bench_data_is_one_line(
    flags: list[str], status: int, message: str, tmp_path: Path
) -> None:
    class_folders(tmp_path / "DATA")
    result = run_command("bench", *flags, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (status, "")
    assert message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.slow
def test_scaling_measures_processes_threads_and_the_exchange() -> None:
    config = BenchConfig(
        what="scaling",
        net="densenet100",
        per_batch_size=4,
        image_size=32,
        amp="fp32",
        threads=2,
        warmup=0,
        rounds=1,
    )
    found = measure_scaling(config)
    network = build("densenet100", num_classes=1000)
    assert found.gradient_bytes == 4 * sum(p.numel() for p in network.parameters())
    for seconds in (found.one_process, found.step, found.local, found.exchange):
        assert min(seconds) > 0
    for text in ("1 process x 2 threads", "2 processes x 1 thread"):
        assert text in scaling_table(found)
    assert [(split.processes, split.threads) for split in found.splits] == [(1, 2), (2, 1)]
    assert [split.step for split in found.splits] == [found.one_process, found.step]
    machine = found.machine
    assert 0 < machine.update < machine.solo
    assert machine.bandwidth > 0
    work = max(machine.solo - machine.update, 4 * found.image_bytes / machine.bandwidth)
    assert all(split.expected > work for split in found.splits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_batch_size": 3, "threads": 2}, "must be a divisor of both, and 2 is not"),
        ({"threads": 4, "processes": "3"}, "must be a divisor of both, and 3 is not"),
        ({"threads": 1}, "--threads must be at least 2"),
    ],
)
def test_cores_that_cannot_share_the_batch_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        measure_scaling(BenchConfig(what="scaling", **settings))


def test_expected_steps_are_those_of_a_hand_calculation() -> None:
    """8 cores of which each takes 1.1 s for its share, 0.1 s of it for the update."""
    machine = Machine(cores=8, solo=1.1, update=0.1, bandwidth=20e9)
    one: dict[str, Any] = {"traffic": 10e9, "parameters": 10_000_000, "exchange": 0.0}
    # Computation binds, 1 s; the update by 8 threads: 0.2 GB at 20 GB/s, or an eighth of 0.1 s.
    assert machine.expected_step(1, **one) == pytest.approx(1.0 + 0.0125)
    # Each of 8 processes updates its own weights at once: 1.6 GB at 20 GB/s, less than 0.1 s.
    eight = one | {"exchange": 0.05}
    assert machine.expected_step(8, **eight) == pytest.approx(1.0 + 0.1 + 0.05)
    # Traffic of 40 GB binds.
    assert machine.expected_step(1, **(one | {"traffic": 40e9})) == pytest.approx(2.0 + 0.0125)


def test_bytes_of_an_image_are_those_of_a_count_by_hand() -> None:
    """A CIFAR network of one layer in each of two blocks, 4 x 4 pixels, float32."""
    net = DenseNet(
        growth_rate=2, block_config=(1, 1), num_init_features=8, num_classes=2, stem="cifar"
    )
    first = 16 * (5 * 8 + 6 * 8 + 4 * 2) + 4 * 16 * 10 + 4 * 5
    second = 4 * (5 * 5 + 6 * 8 + 4 * 2)
    assert bytes_an_image(net, (4, 4), 4) == 4 * (first + second)


def test_only_the_classifier_learns_in_bench_head() -> None:
    model = densenet100(1000)
    spec = {"side": "ours", "what": "head", "size": (32, 32), "batch_size": 2, "amp": "fp32"}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step(spec, model)()
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
