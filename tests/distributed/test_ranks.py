"""Several processes: the same images once, the same weights everywhere, nobody left waiting."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch._C._distributed_c10d import TCPStore

from densenet121.checkpoint.native import read
from densenet121.datasets.sampler import epoch_order, training_batches
from densenet121.distributed.launchers import join
from densenet121.runs.layout import checkpoints_in
from densenet121.utils.errors import UsageError

from helpers.commands import environment
from helpers.forking import Forked
from helpers.images import write_classes
from helpers.ranks import NAMES, SMALL, ranks_of, result, run, start_ranks, torchrun, train


@pytest.fixture(scope="module")
def trained(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks, two epochs, undisturbed."""
    folder = tmp_path_factory.mktemp("two_ranks") / "run"
    train(2, image_folder, folder)
    return folder


GRADIENTS = """
import torch
from densenet121.network import DenseNet
from densenet121.distributed.launchers import join
from densenet121.distributed.ranks import process_group, synchronised

process = join(True, 0, 1)
with process_group(process, torch.device("cpu"), 60):
    torch.manual_seed(process.rank)  # synchronised gives all ranks those of rank 0
    net = DenseNet(growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=3).double()
    together = synchronised(net, torch.device("cpu"))
    torch.manual_seed(7)
    images = torch.randn(8, 3, 40, 40, dtype=torch.float64)
    together(images[process.rank::2]).square().mean().backward()
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    for half in (images[0::2], images[1::2]):
        (net(half).square().mean() / 2).backward()
    for gradient, parameter in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-9, atol=1e-12)
"""


def test_gradients_are_the_mean_over_the_ranks(tmp_path: Path) -> None:
    (tmp_path / "gradients.py").write_text(GRADIENTS)
    run(2, tmp_path / "gradients.py")


def test_two_ranks_share_the_images_and_write_one_folder(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"run.json", "metrics.jsonl", "best.safetensors", "last.safetensors"} <= names
    assert {name for name in names if name.endswith(".ckpt")} == {
        f"0-{epoch}_{step}.ckpt" for epoch in (1, 2) for step in range(1, 5)
    }
    assert sum(name.endswith("_rank_1.log") for name in names) == 1
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    # 45 images are 4 steps of 2 x 5; the remaining 5 wait for another epoch.
    assert [row["step"] for row in rows if row["kind"] == "train"] == [2, 3, 5, 7]
    assert [row["total"] for row in rows if row["kind"] == "eval"] == [21, 21]
    assert json.loads((trained / "run.json").read_text())["world_size"] == 2


def test_resumed_ranks_end_with_the_bits_of_uninterrupted_ones(
    trained: Path, image_folder: Path, tmp_path: Path
) -> None:
    # Between two log lines, so that each rank's own losses have to be taken up again.
    train(2, image_folder, tmp_path / "again", "--resume", trained / "0-2_2.ckpt")
    assert result(tmp_path / "again") == result(trained)


@pytest.mark.slow
def test_three_resumed_ranks_end_with_the_bits_of_uninterrupted_ones(
    image_folder: Path, tmp_path: Path
) -> None:
    """The order of a sum of three matters, of two it does not."""
    train(3, image_folder, tmp_path / "whole")
    train(3, image_folder, tmp_path / "again", "--resume", tmp_path / "whole" / "0-1_2.ckpt")
    assert result(tmp_path / "again") == result(tmp_path / "whole")


@pytest.mark.slow
def test_another_number_of_ranks_goes_on_by_the_stated_rule(
    trained: Path, image_folder: Path, tmp_path: Path
) -> None:
    """Batch and learning rate as given, the steps of an epoch by the new number of ranks."""
    train(3, image_folder, tmp_path / "three", "--resume", trained / "0-1_4.ckpt")
    log = next((tmp_path / "three").glob("*_rank_0.log")).read_text()
    assert "world_size was 2, is now 3" in log
    assert "an epoch had 4 steps and now has 3; continuing at step 3" in log
    rows = [json.loads(r) for r in (tmp_path / "three" / "metrics.jsonl").read_text().splitlines()]
    # Epoch 0 is done; epoch 1 is 45 images in 3 steps of 3 x 5, at a learning rate of 0.02 times
    # the cosine of a run of 2 x 3 steps.
    last = [row for row in rows if row["kind"] == "train"][-1]
    assert (last["epoch"], last["step"]) == (1, 5)
    alone = tmp_path / "alone"
    train(3, image_folder, alone)
    rows = [json.loads(row) for row in (alone / "metrics.jsonl").read_text().splitlines()]
    assert last["lr"] == [row for row in rows if row["kind"] == "train"][-1]["lr"]


def test_evaluation_is_the_same_on_any_number_of_ranks(trained: Path, tmp_path: Path) -> None:
    image_folder = write_classes(tmp_path / "pictures", NAMES, 34)
    (image_folder / "cat" / "033.png").unlink()  # 101 images
    seen = []
    for ranks, batch_size in ((1, 7), (2, 3), (3, 1)):
        folder = tmp_path / f"eval{ranks}"
        run(
            ranks,
            *("-m", "densenet121", "eval", "--data_dir", image_folder, "--amp", "fp32"),
            *("--pretrained", trained / "last.safetensors", "--device", "cpu"),
            *("--per_batch_size", batch_size, "--output_dir", folder),
        )
        content = json.loads((folder / "eval.json").read_text())
        seen.append((content["total"], content["top1_correct"], content["digest"]))
    assert seen[0][0] == 101
    assert seen == [seen[0]] * 3


EVALUATIONS = """
import json, sys
from pathlib import Path
import torch
from densenet121.datasets.sources.open import open_evaluation
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.engine.evaluation import evaluate_images
from densenet121.network import build
from densenet121.distributed.launchers import join
from densenet121.distributed.ranks import process_group
from densenet121.runtime import make_runtime
from densenet121.tasks import SingleLabel
from densenet121.utils.var_init import initialise

process = join(True, 0, 1)
torch.set_num_threads(1)
with process_group(process, torch.device("cpu"), 60):
    images = open_evaluation(Path(sys.argv[1]))
    model = build("densenet40", num_classes=3)
    initialise(model, torch.Generator().manual_seed(0))
    seen = []
    for batch_size in range(1, 8):
        runtime = make_runtime("cpu", "fp32", batch_size, workers=0, process=process)
        found = evaluate_images(
            model, images, SingleLabel(), Preprocessing((16, 16), "18,18"), runtime
        )
        counts = [found.metrics[name] for name in ("total", "top1_correct", "top5_correct")]
        seen.append([*counts, found.digest])
    Path(sys.argv[2] + str(process.rank)).write_text(json.dumps(seen))
"""


@pytest.mark.slow
def test_evaluation_is_the_same_with_1_to_8_ranks_and_batches_of_1_to_7(tmp_path: Path) -> None:
    image_folder = write_classes(tmp_path / "pictures", NAMES, 34)
    (image_folder / "cat" / "033.png").unlink()  # 101 images
    script = tmp_path / "evaluations.py"
    script.write_text(EVALUATIONS)
    seen = set()
    for ranks in (1, 2, 3, 8):
        run(ranks, script, image_folder, tmp_path / f"of{ranks}_")
        for rank in range(ranks):  # each rank returns the result of all
            found = json.loads((tmp_path / f"of{ranks}_{rank}").read_text())
            assert len(found) == 7
            seen |= {tuple(row) for row in found}
    assert len(seen) == 1
    assert seen.pop()[0] == 101


@pytest.mark.slow
def test_evaluation_with_ranks_that_get_no_image(trained: Path, tmp_path: Path) -> None:
    image_folder = write_classes(tmp_path / "pictures", NAMES, 1)
    run(
        8,
        *("-m", "densenet121", "eval", "--data_dir", image_folder, "--device", "cpu"),
        *("--pretrained", trained / "last.safetensors", "--output_dir", tmp_path / "eval"),
    )
    assert json.loads((tmp_path / "eval" / "eval.json").read_text())["total"] == 3


ENDLESS = ["--per_batch_size", "5", "--max_epoch", "1000", "--log_interval", "1"]


def wait_for_an_epoch(folder: Path) -> None:
    until = time.monotonic() + 60
    while not (folder / "0-1_4.ckpt").exists():
        assert time.monotonic() < until, list(folder.glob("*"))
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the ranks in /proc")
def test_a_killed_rank_ends_the_others_within_seconds(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    flags = ["--data_dir", image_folder, "--output_dir", folder, *ENDLESS]
    with torchrun(2, "-m", "densenet121", "train", *SMALL, *flags) as process:
        try:
            wait_for_an_epoch(folder)
            os.kill(ranks_of(process)[1], signal.SIGKILL)
            start = time.monotonic()
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 1
    assert time.monotonic() - start < 20
    log = next(folder.glob("*_rank_0.log")).read_text()
    assert "Traceback" not in log
    assert "lost another rank" in log or "stopped by a signal" in log or "SIGTERM" in output


def test_a_signal_to_one_rank_stops_all_after_saving(image_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    flags = ["--data_dir", image_folder, "--output_dir", folder, *ENDLESS]
    ranks, _ = start_ranks(2, "-m", "densenet121", "train", *SMALL, *flags, folder=tmp_path)
    try:
        wait_for_an_epoch(folder)
        os.kill(ranks[1].pid, signal.SIGTERM)
    finally:
        statuses = [rank.wait(60) for rank in ranks]  # which kills one that goes on
    assert statuses == [143, 143]
    for rank in (0, 1):
        log = next(folder.glob(f"*_rank_{rank}.log")).read_text()
        assert log.count("stopped by a signal") == 1


def test_a_checkpoint_knows_the_images_that_any_rank_has_skipped(tmp_path: Path) -> None:
    data_dir = write_classes(tmp_path / "data", ["x", "y"], 10)
    names = ["x/001.png", "x/005.png", "x/006.png", "y/000.png", "y/003.png", "y/008.png"]
    for name in names:
        (data_dir / name).write_bytes(b"not an image")
    flags = ["--data_dir", data_dir, "--output_dir", tmp_path / "run", "--per_batch_size", 5]
    flags += ["--max_epoch", 1, "--on_bad_image", "skip"]
    ranks, _ = start_ranks(2, "-m", "densenet121", "train", *SMALL, *flags, folder=tmp_path)
    assert [rank.wait() for rank in ranks] == [1, 1]
    _, _, content = read(tmp_path / "run" / "0-1_2.ckpt")
    assert sorted(content["state"]["bad_images"]) == names
    log = next((tmp_path / "run").glob("*_rank_0.log")).read_text()
    assert "6 images could not be read and were skipped" in log


def test_a_rank_that_saves_nothing_names_the_checkpoint_of_rank_0(tmp_path: Path) -> None:
    data_dir = write_classes(tmp_path / "data", ["x", "y"], 10)
    flags = ["--data_dir", data_dir, "--output_dir", tmp_path / "run", "--per_batch_size", 5]
    flags += ["--max_epoch", 1, "--seed", 3, "--ckpt_interval", 1, "--workers", 0]
    second_of_rank_1 = training_batches(epoch_order(20, 3, 0), 5, rank=1, world_size=2)[1]
    image = sorted(data_dir.rglob("*.png"))[second_of_rank_1[0]]
    image.write_bytes(b"not an image")
    ranks, output = start_ranks(2, "-m", "densenet121", "train", *SMALL, *flags, folder=tmp_path)
    assert 1 in [rank.wait() for rank in ranks]
    text = output.read_text()
    good = tmp_path / "run" / "0-1_1.ckpt"
    assert f"not an image (no known format)); the last good checkpoint is {good}; repair" in text
    assert "saved" not in text
    assert [path.name for path in checkpoints_in(tmp_path / "run")] == ["0-1_1.ckpt"]
    lost = next(line for line in text.splitlines() if "rank 0 lost another rank: rank 1" in line)
    assert lost.endswith(
        f"; see the log of that rank; the last good checkpoint is {good}; continue with "
        f"--resume auto --output_dir {tmp_path / 'run'}"
    )


def test_ranks_that_see_other_images_are_refused(image_folder: Path, tmp_path: Path) -> None:
    other = write_classes(tmp_path / "other", NAMES, 16)
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys\nfrom densenet121.cli import main\n"
        f"data = [{str(image_folder)!r}, {str(other)!r}][int(os.environ['RANK'])]\n"
        "sys.exit(main([*sys.argv[1:], '--data_dir', data]))\n"
    )
    flags = ["--per_batch_size", 5, "--output_dir", tmp_path / "run"]
    ranks, output = start_ranks(2, script, "train", *SMALL, *flags, folder=tmp_path)
    assert [rank.wait(60) for rank in ranks] == [1, 1]
    assert (
        "the train data of rank 1 (48 images) differs from that of rank 0 (45 images)"
        in output.read_text()
    )


@pytest.mark.slow
def test_more_ranks_than_images_is_refused(image_folder: Path, tmp_path: Path) -> None:
    process = torchrun(
        2,
        "-m",
        "densenet121",
        "train",
        *SMALL,
        "--data_dir",
        image_folder,
        "--per_batch_size",
        40,
        "--output_dir",
        tmp_path / "run",
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "45 images are fewer than the 2 x 40 of one step" in output


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (3, 8, 1)),
        (
            {
                "OMPI_COMM_WORLD_RANK": "2",
                "OMPI_COMM_WORLD_SIZE": "4",
                "OMPI_COMM_WORLD_LOCAL_RANK": "0",
            },
            (2, 4, 0),
        ),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "6", "SLURM_LOCALID": "2"}, (5, 6, 2)),
        (
            {
                "SLURM_JOB_ID": "7",
                "SLURM_STEP_ID": "0",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "6",
            },
            (0, 6, 0),
        ),
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, (0, 1, 0)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1, 0)),
        ({}, (0, 1, 0)),
    ],
)
def test_launchers_are_known_by_their_variables(
    variables: dict[str, str], expected: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith(("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMPI_", "SLURM_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    process = join(True, 0, 1)
    assert (process.rank, process.world_size, process.local_rank) == expected
    assert join(False, 0, 1).world_size == 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "8", "WORLD_SIZE": "8"}, "there is no such rank"),
        ({"RANK": "a", "WORLD_SIZE": "8"}, "must be whole numbers"),
    ],
)
def test_contradicting_variables_are_refused(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        join(True, 0, 1)


LEAVING = """
import os, time
import torch
import torch.distributed as dist
from torch import nn
from densenet121.distributed import ranks
rank = int(os.environ["RANK"])
with ranks.process_group(ranks.Process(rank, 2, rank, "test"), torch.device("cpu"), 60):
    model = nn.parallel.DistributedDataParallel(nn.Linear(4, 4))
    model(torch.randn(2, 4)).sum().backward()
    import sys
    sys.setswitchinterval(100)  # from here on a thread of gloo waits for the interpreter
    dist.all_reduce(torch.ones(1), async_op=True)
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass
del model
"""


@pytest.mark.slow
def test_ranks_end_while_a_thread_of_gloo_has_a_tensor_to_free() -> None:
    # Ranks that freed their group at once waited for ever or aborted, now and then.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen([sys.executable, "-c", LEAVING], env=environment(**place, RANK=str(rank)))
        for rank in range(2)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]


MEETING = """
import os, time
import torch
import torch.distributed as dist
from densenet121.distributed import ranks
rank = int(os.environ["RANK"])
time.sleep(2 * rank)  # rank 0 looks for rank 1 before that has written where it is
with ranks.process_group(ranks.Process(rank, 2, rank, "test"), torch.device("cpu"), 60):
    found = torch.ones(1)
    dist.all_reduce(found)
    assert found == 2
"""


def test_ranks_that_are_started_again_do_not_look_for_those_that_ended() -> None:
    """torchrun's store outlives the ranks: rank 0 found the old address of rank 1."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    place |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "GROUP_WORLD_SIZE": "1"}
    for attempt in ("0", "1"):
        processes = [
            Forked(
                ["-c", MEETING],
                environment(**place, TORCHELASTIC_RESTART_COUNT=attempt, RANK=str(rank)),
            )
            for rank in range(2)
        ]
        assert [process.wait(timeout_seconds=60) for process in processes] == [0, 0]


@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_ID": "4294967291"}])
def test_a_batch_script_of_slurm_without_srun_does_not_wait_for_ranks_that_nobody_starts(
    step: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "2", **step}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="not the 2 of SLURM_NTASKS; start them with srun"):
        join(True, 0, 1)
    assert join(False, 0, 1).world_size == 1
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():  # torchrun in the script
        monkeypatch.setenv(name, value)
    assert join(True, 0, 1).rank == 1
