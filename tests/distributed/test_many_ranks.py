"""Batches that are spread over ranks and over forwards: the same step as one large batch."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from helpers.commands import environment
from helpers.forking import Forked
from helpers.ranks import SMALL, ranks_of, result, run, train

# Trains a few steps in float64 by the very functions of a run, and stores losses and weights:
#   python steps.py OUT BATCH_SIZE MICRO_BATCHES NORMS
STEPS = """
import sys
import torch
from densenet121.datasets.sampler import split_batches, training_batches
from densenet121.engine.state import Training
from densenet121.network import compiled
from densenet121.engine.step import TrainingBatch, train_step
from densenet121.tasks import SingleLabel
from densenet121.network import DenseNet, set_recompute, synchronise_norms
from densenet121.optimizers import get_param_groups, momentum_sgd
from densenet121.distributed.launchers import join
from densenet121.distributed.ranks import process_group, sum_over_ranks
from densenet121.utils.var_init import initialise


out, batch_size, micro = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
norms, _, more = sys.argv[4].partition("+")
process = join(True, 0, 1)
with process_group(process, torch.device("cpu"), 60):
    net = DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3)
    initialise(net, torch.Generator().manual_seed(0))
    net.double().to(memory_format=torch.channels_last)
    if norms == "sync" and process.world_size > 1:
        synchronise_norms(net)
    set_recompute(net, more == "recompute")
    compress = norms == "bf16"
    compiled.BACKEND = "aot_eager"
    training = Training.begin(
        net,
        momentum_sgd(get_param_groups(net, 1e-3), lr=0.1, momentum=0.9),
        scale_loss=False,
        compress=compress,
        compile="default" if norms == "compiled" else "off",
    )
    net.train()
    if norms in ("frozen", "weighted"):
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(128, 3, 24, 24, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 3, (128,), generator=generator)
    step_size = batch_size * micro
    order = torch.arange(128).numpy()
    task = SingleLabel(0.1, None, (0.5, 1.0, 2.0) if norms == "weighted" else None)
    place = {"rank": process.rank, "world_size": process.world_size}
    losses = []
    for step in training_batches(order, step_size, **place):
        parts = split_batches([step], micro)
        if norms == "uneven":  # some images could not be read: 13 and 3 of 16 are left
            parts = [part[:13] if process.rank else part[:3] for part in parts]
        weights = [task.weight(labels[p]) for p in parts]
        count = sum(weights)
        weight = count * process.world_size / float(sum_over_ranks(torch.tensor(count)))
        loss = train_step(
            training.synchronised,
            training.optimizer,
            training.scaler,
            [TrainingBatch(images[p], labels[p], w / count) for p, w in zip(parts, weights)],
            task.loss,
            micro_batches=micro,
            lr=0.1,
            precision=torch.float32,
            weight=weight,
        )
        losses.append(sum_over_ranks(loss) / process.world_size)
    if norms == "sync":
        for buffer in net.buffers():  # the same on all ranks, and not only on rank 0
            mean = sum_over_ranks(buffer.double()) / process.world_size
            torch.testing.assert_close(mean, buffer.double(), rtol=1e-14, atol=1e-14)
    if process.rank == 0:
        torch.save({"losses": torch.stack(losses), **net.state_dict()}, out)
"""


def steps(tmp_path: Path, ranks: int, batch_size: int, micro: int, norms: str) -> dict[str, object]:
    script, out = tmp_path / "steps.py", tmp_path / f"{ranks}_{micro}_{norms}.pt"
    script.write_text(STEPS)
    arguments = (script, out, batch_size, micro, norms)
    if ranks == 1:
        done = Forked(arguments, environment()).finished()
        assert done.returncode == 0, done.stderr
    else:
        run(ranks, *arguments)
    found: dict[str, object] = torch.load(out)
    return found


def assert_same(found: dict[str, object], expected: dict[str, object], tolerance: float) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("micro", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_ranks_with_synchronised_norms_equal_one_process(tmp_path: Path, micro: int) -> None:
    one = steps(tmp_path, 1, 32, micro, "sync")
    two = steps(tmp_path, 2, 16, micro, "sync")
    assert len(one["losses"]) == 4 // micro  # type: ignore[arg-type]
    assert_same(two, one, 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("micro", [1, 2])
def test_two_compiled_ranks_equal_plain_ones(tmp_path: Path, micro: int) -> None:
    """Traced and run by torch's own operators; the gradients are exchanged as without it."""
    plain = steps(tmp_path, 2, 16, micro, "own")
    assert_same(steps(tmp_path, 2, 16, micro, "compiled"), plain, 1e-10)


@pytest.mark.slow
def test_synchronised_norms_that_run_again_in_the_backward_pass(tmp_path: Path) -> None:
    """They exchange statistics a second time there, and the running ones move once."""
    assert_same(
        steps(tmp_path, 2, 16, 1, "sync+recompute"), steps(tmp_path, 1, 32, 1, "sync"), 1e-10
    )


@pytest.mark.slow
def test_without_synchronised_norms_two_ranks_are_another_network(tmp_path: Path) -> None:
    one, two = steps(tmp_path, 1, 32, 1, "own"), steps(tmp_path, 2, 16, 1, "own")
    assert not torch.allclose(two["losses"], one["losses"], rtol=1e-6)  # type: ignore[arg-type]


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_one_large_batch(tmp_path: Path) -> None:
    """With frozen norms: else each forward has statistics of its own."""
    large = steps(tmp_path, 1, 64, 1, "frozen")
    assert_same(steps(tmp_path, 1, 16, 4, "frozen"), large, 1e-10)
    assert_same(steps(tmp_path, 2, 8, 4, "frozen"), large, 1e-10)


@pytest.mark.slow
def test_a_weighted_loss_is_that_of_one_large_batch(tmp_path: Path) -> None:
    """The weights of all ranks and batches divide it; a mean of their means would differ."""
    large = steps(tmp_path, 1, 64, 1, "weighted")
    assert_same(steps(tmp_path, 1, 16, 4, "weighted"), large, 1e-10)
    assert_same(steps(tmp_path, 2, 8, 4, "weighted"), large, 1e-10)


UNEVEN = """
import torch
from densenet121.network import DenseNet, synchronise_norms
from densenet121.optimizers import get_param_groups, momentum_sgd
from densenet121.distributed.launchers import join
from densenet121.distributed.ranks import process_group, sum_over_ranks, synchronised

process = join(True, 0, 1)
with process_group(process, torch.device("cpu"), 60):
    torch.manual_seed(0)
    make = lambda: DenseNet(growth_rate=4, block_config=(2,), num_init_features=8, num_classes=3)
    alone, net = make().double(), make().double()
    net.load_state_dict(alone.state_dict())
    synchronise_norms(net)
    images = torch.randn(7, 3, 20, 20, dtype=torch.float64)
    whole, own = images.clone().requires_grad_(), images.clone().requires_grad_()
    mine = own[:2] if process.rank == 0 else own[2:]  # 2 and 5 images
    weight = torch.randn(7, 3, dtype=torch.float64)
    mine_weight = weight[:2] if process.rank == 0 else weight[2:]
    (alone(whole) * weight).sum().backward()
    together = synchronised(net, torch.device("cpu"))
    (together(mine) * mine_weight).sum().backward()
    close = dict(rtol=1e-9, atol=1e-11)
    for (name, p), q in zip(net.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(p.grad * 2, q.grad, **close)  # the mean over 2 ranks
    torch.testing.assert_close(sum_over_ranks(own.grad), whole.grad, **close)
    for found, expected in zip(net.buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(found, expected, **close)
    net.eval(), alone.eval()
    torch.testing.assert_close(net(images), alone(images), **close)
"""


def test_synchronised_norms_differentiate_exactly_with_uneven_batches(tmp_path: Path) -> None:
    (tmp_path / "uneven.py").write_text(UNEVEN)
    run(2, tmp_path / "uneven.py")


def test_compressed_gradients_are_half_the_bytes_and_nearly_the_same(tmp_path: Path) -> None:
    script = tmp_path / "bytes.py"
    script.write_text(
        "import time, torch, torch.distributed as dist\n"
        "from densenet121.network import DenseNet\n"
        "from densenet121.distributed.launchers import join\n"
        "from densenet121.distributed.ranks import process_group, synchronised\n"
        "process, sent = join(True, 0, 1), []\n"
        "reduce = dist.all_reduce\n"
        "def watched(tensor, *a, **k):\n"
        "    sent.append(tensor.numel() * tensor.element_size())\n"
        "    return reduce(tensor, *a, **k)\n"
        "dist.all_reduce = watched\n"
        "with process_group(process, torch.device('cpu'), 60):\n"
        "    torch.manual_seed(0)\n"
        "    net = DenseNet(growth_rate=4, block_config=(2,), num_init_features=8, num_classes=3)\n"
        "    images = torch.randn(8, 3, 20, 20)\n"
        "    grads = []\n"
        "    for compress in (False, True):\n"
        "        net.zero_grad()\n"
        "        together = synchronised(net, torch.device('cpu'), compress=compress)\n"
        "        together(images[process.rank::2]).square().mean().backward()\n"
        "        grads.append(torch.cat([p.grad.flatten().clone() for p in net.parameters()]))\n"
        "full, rounded = grads\n"
        "assert sum(sent) == 2 * full.numel(), (sum(sent), full.numel())\n"
        "assert not torch.equal(full, rounded)\n"
        "error = (full - rounded).norm() / full.norm()\n"
        "assert error < 0.01, error\n"
        # gloo's thread may still be letting go of the callback, for which it needs Python.
        "time.sleep(0.5)\n"
    )
    run(2, script)


@pytest.mark.slow
def test_resumed_accumulation_ends_with_the_bits_of_an_uninterrupted_run(
    image_folder: Path, tmp_path: Path
) -> None:
    flags = ("--gradient_accumulation", 2, "--sync_batch_norm", 1, "--gradient_compression", "bf16")
    train(2, image_folder, tmp_path / "whole", *flags)
    train(
        2, image_folder, tmp_path / "again", *flags, "--resume", tmp_path / "whole" / "0-1_1.ckpt"
    )
    assert result(tmp_path / "again") == result(tmp_path / "whole")
    rows = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    # 45 images are 2 steps of 2 ranks x 2 batches x 5.
    assert [json.loads(row)["step"] for row in rows if '"train"' in row] == [1, 2, 3]


@pytest.mark.slow  # `make test-hosts` cuts off a host as well
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the ranks in /proc")
def test_a_rank_that_hangs_is_named_by_the_others(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    flags = ["--data_dir", image_folder, "--output_dir", folder, "--per_batch_size", 5]
    flags += ["--max_epoch", 1000, "--log_interval", 1, "--timeout_seconds", 3]
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "3"]
    command += ["-m", "densenet121", "train", *SMALL, *map(str, flags)]
    output, stopped = tmp_path / "output.txt", 0
    with output.open("w") as stream:
        launcher = subprocess.Popen(
            [sys.executable, *command], env=environment(), stdout=stream, stderr=stream
        )
    try:
        until = time.monotonic() + 60
        while not (folder / "0-1_3.ckpt").exists():
            assert time.monotonic() < until and launcher.poll() is None, output.read_text()
            time.sleep(0.05)
        stopped = ranks_of(launcher)[1]
        os.kill(stopped, signal.SIGSTOP)
        while "rank 0 lost another" not in output.read_text():
            assert time.monotonic() < until, output.read_text()[-2000:]
            time.sleep(0.1)
    finally:
        if stopped:
            os.kill(stopped, signal.SIGKILL)
        launcher.terminate()
        launcher.wait(timeout=60)
    lines = [line for line in output.read_text().splitlines() if "rank 0 lost another" in line]
    assert len(lines) == 1
    # Without a time, rank 2 timed out before it and closed their connection.
    named = (
        r"rank 0 lost another rank( after 3 s)?: rank 1 did not answer: stopped, hanging or disc"
    )
    assert re.search(named, lines[0]), lines
