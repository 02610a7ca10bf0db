"""Learning from a teacher: the loss of the paper, exact on resume, refused where classes differ."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.checkpoint.pretrained import load_model
from densenet121.cli import main
from densenet121.config import TrainConfig
from densenet121.datasets.preparation import training_images
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.sampler import epoch_order
from densenet121.datasets.sources.open import open_training
from densenet121.datasets.transforms import TrainTransform
from densenet121.engine.distillation import make_distillation
from densenet121.engine.train import train
from densenet121.losses import binary_distillation_loss, distillation_loss
from densenet121.network import build
from densenet121.network.fused import plain_network
from densenet121.runs.metrics import read_rows
from densenet121.runtime import make_runtime
from densenet121.tasks import SingleLabel
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.var_init import initialise

from helpers.ranks import train as train_ranks
from helpers.training import train_config
from helpers.weights import write_weights
from tasks.ordinal import Ordinal

NAMES = ("ant", "bee", "cat")


def by_hand(logits: Tensor, teacher: Tensor, labels: Tensor, alpha: float, T: float) -> Tensor:
    """Equations of Hinton et al. 2015, by torch's own functions."""
    hard = F.cross_entropy(logits, labels)
    soft = F.kl_div(
        F.log_softmax(logits / T, dim=1), F.softmax(teacher / T, dim=1), reduction="batchmean"
    )
    return (1 - alpha) * hard + alpha * T**2 * soft


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of another mean and std, with logits of a size that says something."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    model = build("densenet40", num_classes=3)
    initialise(model, torch.Generator().manual_seed(5))
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state["classifier.weight"] *= 1e-4
    preprocessing = Preprocessing((24, 24), "28,28", (120.0, 110.0, 100.0), (50.0, 60.0, 70.0))
    save_weights(path, state, ModelInfo("densenet40", "paper", NAMES, preprocessing), {})
    return path


def config(image_folder: Path, folder: Path, teacher: Path, **flags: Any) -> TrainConfig:
    given = {"teacher": str(teacher), "amp": "fp32", "ckpt_interval": 1, "keep_checkpoint_max": 0}
    return train_config(image_folder, folder, **(given | flags))


def last_weights(folder: Path) -> bytes:
    return (folder / "last.safetensors").read_bytes()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_the_loss_and_its_gradient_are_those_of_the_paper(temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, theirs = 3 * torch.randn(2, 9, 5, dtype=torch.float64, generator=generator)
    labels = torch.randint(5, (9,), generator=generator)
    ours, plain = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found = distillation_loss(ours, theirs, labels, temperature)
    expected = by_hand(plain, theirs, labels, 1.0, temperature)
    assert torch.allclose(found, expected, rtol=1e-12)
    (a,), (b,) = torch.autograd.grad(found, ours), torch.autograd.grad(expected, plain)
    assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)
    assert float(distillation_loss(theirs, theirs, labels, temperature)) == 0
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    rows = [
        by_hand(logits[i : i + 1], theirs[i : i + 1], labels[i : i + 1], 1.0, temperature)
        for i in range(9)
    ]
    own = weights[labels]
    weighted = (torch.stack(rows) * own).sum() / own.sum()
    found = distillation_loss(logits, theirs, labels, temperature, weights)
    assert torch.allclose(found, weighted, rtol=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_of_several_labels_each_known_cell_is_a_choice_of_two(temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits, theirs = 3 * torch.randn(2, 6, 4, dtype=torch.float64, generator=generator)
    targets = torch.randint(2, (6, 4), generator=generator).double()
    targets[0, 0] = targets[3, 2] = torch.nan
    own = logits.clone().requires_grad_()
    found = binary_distillation_loss(own, theirs, targets, temperature)
    (gradient,) = torch.autograd.grad(found, own)
    assert gradient[0, 0] == gradient[3, 2] == 0
    known = ~targets.isnan()
    # The softmax of (0, x) is the sigmoid of x.
    a, b = (torch.stack([torch.zeros(22), x[known]], dim=1).double() for x in (logits, theirs))
    expected = by_hand(a, b, torch.zeros(22, dtype=torch.int64), 1.0, temperature)
    assert torch.allclose(found, expected, rtol=1e-10)
    nothing = torch.full_like(targets, torch.nan)
    assert float(binary_distillation_loss(logits, theirs, nothing, temperature)) == 0


def test_the_first_step_has_the_loss_of_a_plain_computation(
    image_folder: Path, tmp_path: Path, teacher: Path
) -> None:
    settings = config(
        image_folder,
        tmp_path / "run",
        teacher,
        max_epoch=1,
        log_interval=1,
        distill_alpha=0.7,
        distill_temperature=3.0,
    )
    train(settings)
    logged = read_rows(tmp_path / "run" / "metrics.jsonl")[0]["loss"]
    dataset, _ = open_training(image_folder)
    prepare = training_images(dataset, TrainTransform(16, 16), seed=1, epoch=0)
    chosen = epoch_order(45, 1, 0)[:15]
    images = np.empty((15, 16, 16, 3), np.uint8)
    for index, out in zip(chosen, images, strict=True):
        prepare(int(index), out)
    pixels = torch.from_numpy(images)
    model = build("densenet40", num_classes=3)
    initialise(model, torch.Generator().manual_seed(1))
    with plain_network(), torch.no_grad():
        logits = model.train()(Preprocessing((16, 16), "18,18").normalise(pixels))
        mean, std = (120.0, 110.0, 100.0), (50.0, 60.0, 70.0)
        own = Preprocessing((16, 16), "18,18", mean, std).normalise(pixels)
        theirs = load_model(teacher)(own)
    expected = by_hand(logits, theirs, torch.from_numpy(dataset.labels[chosen]), 0.7, 3.0)
    assert logged == pytest.approx(float(expected), rel=1e-4)
    log = next((tmp_path / "run").glob("*.log")).read_text()
    assert f"teacher: {teacher} (densenet40), 0.7 of the loss, at temperature 3" in log


def test_the_teacher_learns_nothing(image_folder: Path, tmp_path: Path, teacher: Path) -> None:
    settings = config(image_folder, tmp_path, teacher)
    runtime = make_runtime("cpu", "fp32", 4, 0)
    found = make_distillation(
        settings, SingleLabel(), NAMES, Preprocessing((16, 16), "18,18"), runtime
    )
    assert found is not None and (found.alpha, found.temperature) == (0.5, 2.0)
    before = read_weights(teacher).state_dict
    logits = found.logits(torch.randn(4, 3, 24, 24), runtime)
    assert not logits.requires_grad and not found.model.training
    assert not any(p.requires_grad for p in found.model.parameters())
    after = found.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    "flags",
    [
        {},
        pytest.param({"distill_alpha": 1.0, "amp": "bf16"}, marks=pytest.mark.slow),
        {"class_weights": "sqrt", "sampler": "balanced", "gradient_accumulation": 2},
    ],
    ids=str,
)
def test_resumed_run_equals_uninterrupted_run(
    flags: dict[str, Any], image_folder: Path, tmp_path: Path, teacher: Path
) -> None:
    whole = config(image_folder, tmp_path / "whole", teacher, **({"per_batch_size": 7} | flags))
    train(whole)
    steps = json.loads((tmp_path / "whole" / "run.json").read_text())["steps_per_epoch"]
    middle = tmp_path / "whole" / f"0-2_{max(1, steps // 2)}.ckpt"
    moved = tmp_path / "moved.safetensors"
    shutil.copy(teacher, moved)
    train(
        replace(
            whole,
            output_dir=str(tmp_path / "again"),
            resume=str(middle),
            workers=2,
            teacher=str(moved),
        )
    )
    assert last_weights(tmp_path / "again") == last_weights(tmp_path / "whole")


def test_another_teacher_is_refused_on_resume(
    image_folder: Path, tmp_path: Path, teacher: Path
) -> None:
    whole = config(image_folder, tmp_path / "run", teacher, max_epoch=1)
    train(whole)
    again = replace(
        whole, resume=str(tmp_path / "run" / "0-1_2.ckpt"), output_dir=str(tmp_path / "again")
    )
    other = write_weights(tmp_path / "other.safetensors", class_names=NAMES)
    with pytest.raises(UsageError, match=r"--teacher was file [0-9a-f]{16}, is now file"):
        train(replace(again, teacher=str(other)))
    with pytest.raises(UsageError, match=r"--teacher was file [0-9a-f]{16}, is now None"):
        train(replace(again, teacher=None))
    with pytest.raises(UsageError, match=r"--distill_alpha was 0.5, is now 0.6"):
        train(replace(again, distill_alpha=0.6))
    train(replace(again, distill_alpha=0.5))  # the default, given


@pytest.mark.slow
def test_a_student_comes_closer_to_its_teacher(
    image_folder: Path, tmp_path: Path, teacher: Path
) -> None:
    """With the labels left out, the loss is the divergence itself; it falls."""
    settings = config(
        image_folder, tmp_path / "run", teacher, max_epoch=6, distill_alpha=1.0, log_interval=3
    )
    train(settings)
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "lr" in row]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--distill_alpha", "0.5"], 2, "--distill_alpha needs --teacher"),
        (["--distill_temperature", "2"], 2, "--distill_temperature needs --teacher"),
        (["--teacher", "T", "--distill_alpha", "0"], 2, "must be above 0 and at most 1, got 0"),
        (["--teacher", "T", "--distill_alpha", "1.1"], 2, "must be above 0 and at most 1, got 1.1"),
        (["--teacher", "T", "--distill_temperature", "0"], 2, "must be from 0.01 to 1000, got 0"),
        (["--teacher", ""], 2, "--teacher must name weights"),
        (["--teacher", "nowhere"], 1, "nowhere: there is no such weights file"),
    ],
)
def test_a_wrong_setting_is_one_line(
    flags: list[str],
    status: int,
    message: str,
    image_folder: Path,
    tmp_path: Path,
    teacher: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(teacher) if flag == "T" else flag for flag in flags]
    folder = ["--output_dir", str(tmp_path / "run"), "--net", "densenet40"]
    assert main(["train", "--data_dir", str(image_folder), *folder, *given]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_does_not_fit_is_refused_by_name(
    image_folder: Path, tmp_path: Path, teacher: Path
) -> None:
    other = write_weights(tmp_path / "other.safetensors", class_names=("ant", "bee", "dog"))
    with pytest.raises(InputError, match=r"missing: cat; unknown: dog"):
        train(config(image_folder, tmp_path / "run", other))
    order = write_weights(tmp_path / "order.safetensors", class_names=("bee", "ant", "cat"))
    with pytest.raises(InputError, match="the same names in another order"):
        train(config(image_folder, tmp_path / "run", order))
    unnamed = tmp_path / "unnamed.safetensors"
    write_weights(unnamed, class_names=tuple("abcd"))
    weights = read_weights(unnamed)
    assert weights.info is not None
    save_weights(unnamed, weights.state_dict, replace(weights.info, class_names=()), {})
    with pytest.raises(InputError, match=r"has 4 classes \(without names\), but the training data"):
        train(config(image_folder, tmp_path / "run", unnamed))
    with pytest.raises(UsageError, match="the task ordinal cannot learn from a `teacher`"):
        train(config(image_folder, tmp_path / "run", teacher), task=Ordinal())
    large = tmp_path / "large.safetensors"
    info = ModelInfo("densenet121", "paper", NAMES, Preprocessing((224, 224), "256,256"))
    save_weights(large, build("densenet121", num_classes=3).state_dict(), info, {})
    with pytest.raises(InputError, match="densenet121 needs images of at least 29 pixels"):
        train(config(image_folder, tmp_path / "run", large))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_ranks_learn_from_it_and_resume_exactly(
    image_folder: Path, tmp_path: Path, teacher: Path
) -> None:
    train_ranks(2, image_folder, tmp_path / "whole", "--teacher", teacher)
    middle = tmp_path / "whole" / "0-2_2.ckpt"
    train_ranks(2, image_folder, tmp_path / "again", "--teacher", teacher, "--resume", middle)
    assert last_weights(tmp_path / "again") == last_weights(tmp_path / "whole")


def test_a_recipe_with_frozen_stages_learns_from_it(
    image_folder: Path, tmp_path: Path, teacher: Path
) -> None:
    """The first epoch trains the head alone; then all thaws, and averaged weights follow."""
    flags = {"recipe": "finetune", "pretrained": str(teacher), "teacher": str(teacher)}
    command = ["train", "--data_dir", str(image_folder), "--output_dir", str(tmp_path / "run")]
    command += [word for name, value in flags.items() for word in (f"--{name}", value)]
    command += ["--net", "densenet40", "--max_epoch", "2", "--ema_decay", "0.9", "--workers", "0"]
    assert main(command) == 0
    assert (tmp_path / "run" / "best_ema.safetensors").exists()
