"""`compile`: training passes compiled by torch.compile.

That the traced network is the plain one is in tests/network/test_compile.py. What PyTorch's
compiler makes of it is in the slow tests, on a CPU; nothing was run on a GPU.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from densenet121.config import TrainConfig
from densenet121.engine.start import begin_training
from densenet121.engine.state import Training, snapshot
from densenet121.engine.step import TrainingBatch, train_step
from densenet121.losses import smooth_cross_entropy
from densenet121.network import DenseNet, plain_network
from densenet121.network.compiled import compiled, named_compile_errors
from densenet121.optimizers import get_param_groups, momentum_sgd
from densenet121.runtime import make_runtime
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.var_init import initialise

from helpers.commands import run_command
from helpers.ranks import SMALL

Backend = Callable[[Any], None]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """Choose who compiles; traces are forgotten afterwards, another test must not run them."""
    yield lambda chosen: monkeypatch.setattr("densenet121.network.compiled.BACKEND", chosen)
    torch._dynamo.reset()


def small_net() -> DenseNet:
    net = DenseNet(growth_rate=4, block_config=(1, 1), num_init_features=8, num_classes=3)
    initialise(net, torch.Generator().manual_seed(0))
    return net.double().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload,no-any-return]


def begin(net: DenseNet, **settings: Any) -> Training:
    optimizer = momentum_sgd(get_param_groups(net, 1e-3), lr=0.1, momentum=0.9)
    return Training.begin(net, optimizer, scale_loss=False, **settings)


def step(training: Training, count: int = 4) -> Tensor:
    images = torch.randn(count, 3, 24, 24, dtype=torch.float64, generator=torch.manual_seed(1))
    return train_step(
        training.synchronised,
        training.optimizer,
        training.scaler,
        [TrainingBatch(images, torch.arange(count) % 3, 1.0)],
        smooth_cross_entropy,
        lr=0.1,
        precision=torch.float32,
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method.:DeprecationWarning")  # torch's own
def test_compiled_steps_equal_the_plain_ones_and_leave_the_state_as_it_is(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss, weights, momentum, running statistics; sizes of batches that change; a freeze."""
    # PyTorch's threads that compile what is not in its cache would outlive the test.
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    backend("inductor")
    net = small_net()
    training, plain = begin(copy.deepcopy(net), compile="default"), begin(net)
    for count, frozen in ((4, ()), (3, ()), (4, ("stem", "block1"))):
        training.freeze(frozen, "auto")
        plain.freeze(frozen, "auto")
        with plain_network():
            expected = step(plain, count)
        torch.testing.assert_close(step(training, count), expected, rtol=1e-12, atol=0)
    (found, values), (truth, other) = (
        snapshot(side, side.losses.of_all_ranks()) for side in (training, plain)
    )
    assert list(found) == list(truth)
    assert values == other
    for name, tensor in truth.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-10, atol=1e-12, msg=name)


def test_a_failed_compilation_is_one_line(backend: Backend) -> None:
    def without_compiler(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no working compiler\nand more")

    backend(without_compiler)
    training = begin(small_net(), compile="default")
    with pytest.raises(InputError) as caught, named_compile_errors():
        step(training)
    assert "(RuntimeError: no working compiler)" in str(caught.value)
    assert str(caught.value).endswith("pass `compile` off")


def test_other_errors_are_not_those_of_a_compilation() -> None:
    with pytest.raises(RuntimeError, match="another"), named_compile_errors():
        raise RuntimeError("another")


def test_graphs_need_a_gpu() -> None:
    with pytest.raises(UsageError, match="`compile` graphs needs an NVIDIA or AMD GPU"):
        compiled(small_net(), "graphs", exact=True)


def test_the_settings_reach_the_network() -> None:
    net, runtime = small_net(), make_runtime(device="cpu")
    training = begin_training(net, TrainConfig(data_dir="d", recompute=1), runtime)
    blocks = [part for part in training.model.features.modules() if hasattr(part, "recompute")]
    assert len(blocks) == 4  # with the transition, and all of them for the stem
    assert all(block.recompute for block in blocks)
    with pytest.raises(UsageError, match="`triton` 1: Triton has no code for this device, cpu"):
        begin_training(net, TrainConfig(data_dir="d", triton=1), runtime)
    with pytest.raises(UsageError, match="`cuda_graphs` 1 needs an NVIDIA or AMD GPU"):
        begin_training(net, TrainConfig(data_dir="d", cuda_graphs=1), runtime)
    with pytest.raises(UsageError, match="`compile` graphs needs"):
        begin_training(net, TrainConfig(data_dir="d", compile="graphs"), runtime)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"compile": "default", "sync_batch_norm": 1}, "--sync_batch_norm 1"),
        ({"compile": "default", "recompute": 1}, "--recompute 1"),
        ({"compile": "default", "triton": 1}, "--triton 1"),
        ({"triton": 1, "sync_batch_norm": 1}, "--sync_batch_norm 1"),
        ({"compile": "graphs", "gradient_accumulation": 2}, "--gradient_accumulation 2"),
        ({"cuda_graphs": 1, "gradient_accumulation": 2}, "--gradient_accumulation 2"),
        ({"cuda_graphs": 1, "compile": "default"}, "--compile default"),
    ],
)
def test_contradictory_settings_are_refused(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(UsageError, match=f"{names} exclude each other"):
        TrainConfig(data_dir="d", **settings)


@pytest.mark.slow
def test_a_resumed_compiled_run_ends_with_the_bits_of_an_uninterrupted_one(
    image_folder: Path, tmp_path: Path
) -> None:
    """By PyTorch's compiler for the CPU, in processes of their own."""
    whole, again = tmp_path / "whole", tmp_path / "again"
    flags = [*SMALL, "--data_dir", image_folder, "--per_batch_size", 15, "--max_epoch", 2]
    flags += ["--ckpt_interval", 2, "--keep_checkpoint_max", 0, "--compile", "default"]
    succeed("train", *flags, "--output_dir", whole)
    middle = sorted(whole.glob("0-1_*.ckpt"))[0]
    succeed("train", *flags, "--output_dir", again, "--resume", middle)
    names = ("last.safetensors", "predictions.csv")
    assert [(whole / n).read_bytes() for n in names] == [(again / n).read_bytes() for n in names]
    weights = ["--pretrained", again / "last.safetensors", "--output_dir", tmp_path / "eval"]
    succeed("eval", "--data_dir", image_folder, *weights)


def succeed(*arguments: object) -> None:
    done = run_command(*arguments, timeout_seconds=900)
    assert done.returncode == 0, done.stderr
