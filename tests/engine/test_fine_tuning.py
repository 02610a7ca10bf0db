"""Fine-tuning in whole runs: frozen weights, patience, averaged weights, exact resumption."""

import csv
import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import cohen_kappa_score

from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import read, save, save_weights
from densenet121.config import EvalConfig, TrainConfig
from densenet121.engine.evaluate import evaluate
from densenet121.engine.plan import HEAD_STEPS, frozen_epochs, make_schedule
from densenet121.engine.train import train
from densenet121.network import densenet40, stages
from densenet121.runs.layout import checkpoints_in
from densenet121.runs.metrics import read_rows
from densenet121.runs.read import read_run
from densenet121.utils.errors import UsageError

from helpers.images import write_classes
from helpers.ranks import result
from helpers.ranks import train as train_ranks
from helpers.training import train_config


@pytest.fixture(scope="module")
def pretrained(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Weights of a short run on the same images, with a mean and std of their own."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    train(train_config(image_folder, folder, max_epoch=1))
    weights = read_weights(folder / "last.safetensors")
    assert weights.info is not None
    preprocessing = replace(
        weights.info.preprocessing, mean=(100.0, 101.0, 102.0), std=(50.0, 51.0, 52.0)
    )
    path = folder / "own.safetensors"
    info = replace(weights.info, preprocessing=preprocessing)
    save_weights(path, weights.state_dict, info, weights.origin)
    return str(path)


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves but times and paths."""
    newest = checkpoints_in(folder)[0]
    _, tensors, content = read(newest)
    timed = ("images_per_second", "data_wait")
    rows = read_rows(folder / "metrics.jsonl")
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "newest": newest.name,
        "tensors": {name: tensor.numpy().tobytes() for name, tensor in tensors.items()},
        "state": content["state"],
        "rows": [{k: v for k, v in row.items() if k not in timed} for row in rows],
        "files": {path.name: path.read_bytes() for path in weights},
        "predictions": (folder / "predictions.csv").read_bytes(),
    }


def killed_and_resumed(config: TrainConfig, folder: Path, steps: int, tmp_path: Path) -> Path:
    """The run as if killed after ``steps``, then resumed."""
    part = tmp_path / f"part{steps}"
    shutil.copytree(folder, part)
    for path in checkpoints_in(part)[::-1][steps:]:
        path.unlink()
    train(replace(config, output_dir=str(part), resume="auto"))
    return part


CASES: dict[str, dict[str, Any]] = {
    "adamw, thaw, ema": {
        "optimizer": "adamw",
        "lr": 0.002,
        "freeze": "all_but_head",
        "freeze_epochs": "auto",
        "head_lr_mult": 10.0,
        "layer_lr_decay": 0.7,
        "ema_decay": 0.9,
        "lr_scheduler": "cosine",
        "clip_grad": 1.0,
    },
    "amsgrad, frozen": {
        "optimizer": "adam",
        "amsgrad": 1,
        "lr": 0.002,
        "freeze": "block1",
        "freeze_bn": "1",
        "lr_scheduler": "one_cycle",
        "last_batch": "keep",
        "per_batch_size": 13,
    },
    "nesterov, plateau": {
        "optimizer": "nesterov",
        "lr_scheduler": "plateau",
        "plateau_patience": 1,
        "min_delta": 0.5,
        "max_epoch": 4,
        "best_metric": "loss",
    },
    "rmsprop, patience": {
        "optimizer": "rmsprop",
        "momentum": 0.5,
        "lr": 1e-4,
        "lr_scheduler": "polynomial",
        "patience": 2,
        "min_delta": 0.9,
        "max_epoch": 6,
        "best_metric": "balanced_accuracy",
        "ema_decay": 0.99,
    },
    "validation every second epoch, patience": {
        "lr": 1e-4,
        "val_interval": 2,
        "patience": 1,
        "min_delta": 0.9,
        "max_epoch": 7,
        "ema_decay": 0.9,
    },
}


# `make test-slow` kills the others.
@pytest.mark.parametrize(
    "case",
    [c if c == "adamw, thaw, ema" else pytest.param(c, marks=pytest.mark.slow) for c in CASES],
)
def test_a_run_killed_at_a_random_step_ends_as_the_uninterrupted_one(
    image_folder: Path, pretrained: str, tmp_path: Path, case: str
) -> None:
    config = train_config(
        image_folder,
        tmp_path / "whole",
        ckpt_interval=1,
        keep_checkpoint_max=0,
        pretrained=pretrained,
        **CASES[case],
    )
    folder = train(config).folder
    expected = outcome(folder)
    done = len(checkpoints_in(folder))
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    for steps in random.Random(seed).sample(range(1, done), 2):
        assert outcome(killed_and_resumed(config, folder, steps, tmp_path)) == expected, steps


def test_the_frozen_part_is_that_of_the_pretrained_weights_to_the_bit(
    image_folder: Path, pretrained: str, tmp_path: Path
) -> None:
    config = train_config(
        image_folder,
        tmp_path / "run",
        pretrained=pretrained,
        freeze="block2",
        weight_decay=0.1,
        optimizer="adamw",
        max_epoch=1,
        ema_decay=0.5,
    )
    folder = train(config).folder
    before = read_weights(Path(pretrained)).state_dict
    model = densenet40(3)
    inside = {
        name
        for name, tensor in model.state_dict(keep_vars=True).items()
        for stage in ("stem", "block1", "block2")
        for module in stages(model)[stage]
        if any(tensor is t for t in (*module.parameters(), *module.buffers()))
    }
    assert len(inside) == 1 + 2 * (6 * 12 + 6)  # conv0; layers and transition of two blocks
    for file in ("last.safetensors", "last_ema.safetensors"):
        after = load_file(folder / file)
        assert {name for name in after if torch.equal(after[name], before[name])} == inside


def test_the_log_says_what_is_frozen_with_counts_and_when_it_thaws(
    image_folder: Path, pretrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = train_config(
        image_folder,
        tmp_path / "run",
        pretrained=pretrained,
        freeze="block3",
        freeze_epochs=1,
        head_lr_mult=5.0,
    )
    train(config)
    log = capsys.readouterr().out
    assert "stem: frozen, 1 tensors with 648 weights" in log
    assert "head: learns at 5 of `lr`, 2 tensors with 399 weights" in log
    assert re.search(r"INFO:frozen in the first 1 of 2 epochs, \d+ steps\n", log)
    assert log.index("stem: frozen") < log.index("local passed") < log.index("stem: learns at 1 of")


@pytest.mark.parametrize(
    ("given", "max_epoch", "steps", "frozen"),
    [
        (0, 30, 4, 30),
        (3, 30, 4, 3),
        ("auto", 30, 4, 8),  # 60 images in batches of 16
        ("auto", 30, 5, 7),  # 28 steps are not enough
        ("auto", 30, 3, 10),  # a third of the run
        ("auto", 30, 32, 1),
        ("auto", 30, 5000, 1),
        ("auto", 2, 4, 1),
        ("auto", 1, 4, 0),
    ],
)
def test_a_freeze_holds_until_the_new_classifier_has_learnt(
    given: int | str, max_epoch: int, steps: int, frozen: int
) -> None:
    config = TrainConfig(
        data_dir="x", pretrained="w", freeze="block4", freeze_epochs=given, max_epoch=max_epoch
    )
    assert frozen_epochs(config, steps) == frozen


def test_a_warmup_of_less_than_a_step_is_a_step() -> None:
    config = TrainConfig(data_dir="x", max_epoch=10, lr_scheduler="one_cycle", warmup_epochs=0.1)
    rate = make_schedule(config, 5)  # half a step; 30 % of the run are 15 steps
    assert rate(0) == config.lr > rate(1) > rate(2)


def test_new_weights_are_not_frozen_where_there_is_nothing_to_resume(
    image_folder: Path, tmp_path: Path
) -> None:
    config = train_config(image_folder, tmp_path / "run", freeze="all_but_head", resume="auto")
    with pytest.raises(UsageError, match="--freeze all_but_head needs --pretrained, because"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def thawed(
    image_folder: Path, pretrained: str, tmp_path_factory: pytest.TempPathFactory
) -> TrainConfig:
    """A run of 6 epochs that was frozen in the first of them; its folder is not to be changed."""
    config = train_config(
        image_folder,
        tmp_path_factory.mktemp("thawed") / "run",
        max_epoch=6,
        pretrained=pretrained,
        freeze="all_but_head",
        freeze_epochs=1,
        lr_scheduler="constant",
    )
    train(config)
    return config


def test_layers_that_learn_do_not_freeze_again_where_an_epoch_gets_other_steps(
    thawed: TrainConfig, tmp_path: Path
) -> None:
    """As on more ranks, or with fewer images: `auto` would freeze more epochs of 3 steps."""
    whole = Path(str(thawed.output_dir))
    _, tensors, content = read(whole / "0-1_3.ckpt")
    settings = content["run"]["settings"] | {"freeze_epochs": "auto"}
    content["run"] |= {"settings": settings, "steps_per_epoch": HEAD_STEPS}
    content["state"]["step"] = HEAD_STEPS  # of one epoch
    save(tmp_path / "0-1_32.ckpt", "checkpoint", tensors, content)
    train(replace(thawed, freeze_epochs="auto", output_dir=str(tmp_path), resume="auto"))
    assert outcome(tmp_path)["tensors"] == outcome(whole)["tensors"]
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["first_steps_per_epoch"] == HEAD_STEPS  # for the next resume


def test_a_freeze_of_other_epochs_is_no_longer_run_unless_their_number_is_passed(
    thawed: TrainConfig, tmp_path: Path
) -> None:
    # 3 steps an epoch: `auto` freezes a third of the run, 1 epoch of 3 and 2 of 6.
    folder = str(tmp_path / "short")
    short = replace(thawed, output_dir=folder, max_epoch=3, freeze_epochs="auto")
    train(short)
    longer = replace(short, max_epoch=6, resume="auto")
    message = (
        r"step 3, the first of epoch 2, had all layers learning and would have had `freeze` "
        r"all_but_head; start a new run with `pretrained`, or pass `freeze_epochs` 1$"
    )
    with pytest.raises(UsageError, match=message):
        train(longer)
    with pytest.raises(UsageError, match="step 3, the first of epoch 2"):
        train(replace(longer, freeze_epochs=2))
    # The freeze of the whole run has other groups of weights.
    with pytest.raises(UsageError, match="--freeze_epochs was auto, is now 0"):
        train(replace(longer, freeze_epochs=0))
    train(replace(longer, freeze_epochs=1))
    assert outcome(tmp_path / "short") == outcome(Path(str(thawed.output_dir)))


def test_the_mean_and_size_of_the_weights_are_used_unless_a_setting_says_otherwise(
    image_folder: Path, pretrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = train_config(
        image_folder, tmp_path / "a", pretrained=pretrained, image_size=None, max_epoch=1
    )
    train(config)
    info = read_weights(tmp_path / "a" / "last.safetensors").info
    assert info is not None
    assert info.preprocessing.image_size == (16, 16)
    assert info.preprocessing.mean == (100.0, 101.0, 102.0)
    assert "are used for training too" in capsys.readouterr().out
    # A resumed run keeps them, even where the file of the weights is gone.
    train(replace(config, pretrained=None, resume="auto"))
    train(replace(config, output_dir=str(tmp_path / "b"), image_size=20, normalisation="original"))
    info = read_weights(tmp_path / "b" / "last.safetensors").info
    assert info is not None
    assert info.preprocessing.image_size == (20, 20)
    assert info.preprocessing.mean[0] == pytest.approx(0.485 * 255)
    assert "this run uses those of the original" in capsys.readouterr().out


def test_patience_ends_the_run_and_names_the_best_epoch(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = train_config(
        image_folder, tmp_path / "run", patience=2, min_delta=0.99, max_epoch=9, lr=0.0
    )
    result = train(config)
    assert not result.stopped
    log = capsys.readouterr().out
    assert "top1 has not improved for 2 validations (`patience`): the run ends" in log
    rows = [r for r in read_rows(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "eval"]
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    best = max(rows, key=lambda row: row["top1"])["epoch"]  # the first of equal ones
    assert f"best: epoch[{best}]" in log
    # Resumed, it has nothing left to do.
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    assert "3 of 9 epochs done" not in log
    assert not train(replace(config, resume="auto")).stopped
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before
    said = "nothing is left to do: `patience` has ended the run after 3 of 9 epochs"
    assert said in capsys.readouterr().out


def test_epochs_between_two_validations_leave_the_weights_as_they_are(
    image_folder: Path, tmp_path: Path
) -> None:
    config = train_config(image_folder, tmp_path / "every", max_epoch=5, ema_decay=0.5)
    train(config)
    train(replace(config, output_dir=str(tmp_path / "some"), val_interval=2))
    every, some = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("every", "some"))
    assert [row["epoch"] for row in some if row["kind"] == "eval"] == [1, 3, 4]
    assert [row["epoch"] for row in some if row["kind"] == "eval_ema"] == [1, 3, 4]
    validated = [row for row in every if row["kind"] == "eval" and row["epoch"] in (1, 3, 4)]
    assert validated == [row for row in some if row["kind"] == "eval"]
    for name in ("last.safetensors", "last_ema.safetensors", "predictions.csv"):
        assert (tmp_path / "every" / name).read_bytes() == (tmp_path / "some" / name).read_bytes()
    best = max(validated, key=lambda row: row["top1"])["epoch"]  # the first of equal ones
    assert read_weights(tmp_path / "some" / "best.safetensors").origin["epoch"] == best


def test_averaged_weights_are_validated_saved_and_shown(image_folder: Path, tmp_path: Path) -> None:
    config = train_config(image_folder, tmp_path / "run", ema_decay=0.5)
    train(config)
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    averaged = [row for row in rows if row["kind"] == "eval_ema"]
    assert [row["epoch"] for row in averaged] == [0, 1]
    file = tmp_path / "run" / "last_ema.safetensors"
    found = evaluate(
        EvalConfig(
            data_dir=str(image_folder),
            pretrained=str(file),
            output_dir=str(tmp_path / "eval"),
            per_batch_size=15,  # that of training: on a GPU other kernels have other bits
        )
    )
    (evaluation,) = found.evaluations.values()
    assert evaluation is not None
    assert evaluation.metrics["loss"] == pytest.approx(averaged[-1]["loss"], rel=1e-6)
    run = read_run(tmp_path / "run")
    assert run.notes == []
    labels = [curve.label for curve in run.task.report(run.results).curves]
    assert labels == ["top-1", "top-1, averaged weights"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 2}, "`patience` needs validation images"),
        ({"lr_scheduler": "plateau"}, "`lr_scheduler` plateau needs validation images"),
        ({"best_metric": "loss"}, "`best_metric` needs validation images"),
        ({"val_interval": 3}, "`val_interval` 3 needs validation images"),
    ],
)
def test_what_needs_a_validation_is_refused_without_one(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    write_classes(tmp_path / "images", ["ant", "bee"], 8)
    with pytest.raises(UsageError, match=message):
        train(train_config(tmp_path / "images", tmp_path / "run", **settings))
    assert not (tmp_path / "run").exists()


def test_a_metric_that_the_task_does_not_have_is_refused(
    image_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="auroc, quadratic_kappa, loss for the"):
        train(train_config(image_folder, tmp_path / "run", best_metric="average_precision"))


def test_the_auroc_of_one_class_per_image_decides_which_weights_are_the_best(
    image_folder: Path, tmp_path: Path
) -> None:
    train(train_config(image_folder, tmp_path / "run", best_metric="auroc", max_epoch=3))
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "eval"]
    aurocs = [row["auroc"] for row in rows]
    assert len(aurocs) == 3 and all(0 <= value <= 1 for value in aurocs)
    best = read_weights(tmp_path / "run" / "best.safetensors").origin
    assert best["epoch"] == aurocs.index(max(aurocs)) and best["auroc"] == max(aurocs)


def test_the_kappa_of_grades_decides_and_is_logged_beside_the_accuracy(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(train_config(image_folder, tmp_path / "run", best_metric="quadratic_kappa", max_epoch=3))
    rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "eval"]
    kappas = [row["quadratic_kappa"] for row in rows]
    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    expected = cohen_kappa_score(
        [row["label"] for row in table], [row["predicted"] for row in table], weights="quadratic"
    )
    assert kappas[-1] == pytest.approx(expected, abs=1e-12)
    best = read_weights(tmp_path / "run" / "best.safetensors").origin
    assert best["epoch"] == kappas.index(max(kappas)) and best["quadratic_kappa"] == max(kappas)
    log = capsys.readouterr().out
    shown = [f"{kappa:.4f}" for kappa in kappas]
    assert re.findall(r"after allreduce eval: quadratic_kappa=(.*)", log) == shown
    assert re.search(rf"best: epoch.*, quadratic_kappa={max(kappas):.4f}, ", log)


def test_an_auroc_that_the_validation_images_do_not_have_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "images" / "train", ["ant", "bee"], 8)
    write_classes(tmp_path / "images" / "val", ["ant"], 4)
    config = train_config(tmp_path / "images", tmp_path / "run", best_metric="auroc")
    with pytest.raises(UsageError, match=r"`best_metric` is auroc, but .*val has images of one cl"):
        train(config)
    names = [f"class{k:03d}" for k in range(101)]
    for split in ("train", "val"):
        write_classes(tmp_path / "many" / split, names, 1)
    config = train_config(tmp_path / "many", tmp_path / "run", best_metric="auroc")
    with pytest.raises(UsageError, match=r"auroc is for at most 100 classes, and .* has 101"):
        train(config)


def test_every_image_is_used_when_the_last_batch_is_kept(
    image_folder: Path, tmp_path: Path
) -> None:
    config = train_config(
        image_folder, tmp_path / "run", per_batch_size=20, last_batch="keep", max_epoch=1
    )
    train(config)
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["steps_per_epoch"] == 3  # 20 + 20 + 5 of 45


def test_the_logged_loss_is_the_mean_over_the_images(image_folder: Path, tmp_path: Path) -> None:
    config = train_config(
        image_folder, tmp_path / "each", per_batch_size=20, last_batch="keep", log_interval=1
    )
    train(config)
    train(replace(config, output_dir=str(tmp_path / "all"), log_interval=3))
    each, all_images = (
        [r["loss"] for r in read_rows(tmp_path / name / "metrics.jsonl") if r["kind"] == "train"]
        for name in ("each", "all")
    )
    for epoch, found in enumerate(all_images):
        first, second, third = each[3 * epoch : 3 * epoch + 3]
        assert found == pytest.approx((20 * first + 20 * second + 5 * third) / 45, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lr": 0.1, "with_weights": True}, "`recipe` finetune suits them"),
        ({"lr": 0.1}, "45 images are few for the settings of the original"),
        (
            {"lr": 0.01, "per_batch_size": 32},
            "an epoch leaves out 13 of 45 images, which do not fill a batch of 32; pass "
            "`last_batch` keep or a smaller `per_batch_size`",
        ),
        (  # 45 = 2 x 21 + 3
            {"per_batch_size": 7, "gradient_accumulation": 3, "last_batch": "keep"},
            "an epoch leaves out 3 of 45 images, which do not fill a batch of 21; pass another "
            "`per_batch_size` (`last_batch` keep needs 6)",
        ),
        (
            {"freeze": "stem", "freeze_epochs": "auto", "with_weights": True},
            "`freeze` stem has no effect: with `freeze_epochs` auto",
        ),
        (
            {"image_size": 24, "small_size": 16, "small_epochs": 1},
            "`small_epochs` 1 are all of `max_epoch` 1: every epoch trains on images of 16 x 16, "
            "but validation is on 24 x 24",
        ),
        ({"lr_scheduler": "exponential"}, "`lr_epochs` 30,60,90,120 are after the last epoch of"),
        (
            {"lr_epochs": "1", "lr_gamma": 0.5, "label_smooth_factor": 0.2},
            [
                "`lr_epochs` 1 has no effect without `lr_scheduler` exponential",
                "`lr_gamma` 0.5 has no effect without `lr_scheduler` exponential",
                "`label_smooth_factor` 0.2 has no effect without `label_smooth` 1",
            ],
        ),
        (
            {"lr_scheduler": "exponential", "eta_min": 0.01, "T_max": 2},
            [
                "`T_max` 2 has no effect without `lr_scheduler` cosine_annealing",
                "`eta_min` 0.01 has no effect without `lr_scheduler` cosine_annealing",
            ],
        ),
    ],
)
def test_settings_that_suit_the_images_badly_are_named(
    image_folder: Path,
    pretrained: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, Any],
    expected: str | list[str],
) -> None:
    weights = pretrained if settings.pop("with_weights", False) else None
    train(train_config(image_folder, tmp_path / "run", max_epoch=1, pretrained=weights, **settings))
    said = capsys.readouterr().out
    lines = [expected] if isinstance(expected, str) else expected
    assert [line for line in lines if line not in said] == []
    assert said.count(" has no effect without ") == "".join(lines).count(" has no effect without ")


def test_an_older_checkpoint_without_these_settings_is_resumed(
    image_folder: Path, tmp_path: Path
) -> None:
    config = train_config(image_folder, tmp_path / "run", ckpt_interval=1, keep_checkpoint_max=0)
    folder = train(config).folder
    before = outcome(folder)
    with pytest.raises(UsageError, match="--optimizer was sgd, is now adamw"):
        train(replace(config, resume="auto", optimizer="adamw"))
    assert outcome(folder) == before


@pytest.mark.slow
def test_two_ranks_thaw_and_resume_to_the_bit(
    image_folder: Path, pretrained: str, tmp_path: Path
) -> None:
    flags = ["--pretrained", pretrained, "--freeze", "all_but_head", "--freeze_epochs", 1]
    flags += ["--optimizer", "adamw", "--ema_decay", 0.9, "--last_batch", "keep"]
    folder = tmp_path / "whole"
    train_ranks(2, image_folder, folder, *flags)
    for steps in (2, 7):
        part = tmp_path / f"part{steps}"
        shutil.copytree(folder, part)
        for path in checkpoints_in(part)[::-1][steps:]:
            path.unlink()
        train_ranks(2, image_folder, part, *flags, "--resume", "auto")
        assert result(part) == result(folder)
        for name in ("best_ema.safetensors", "last_ema.safetensors"):
            assert (part / name).read_bytes() == (folder / name).read_bytes()
