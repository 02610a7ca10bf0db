"""The settings: their names and defaults are frozen, their ranges are kept."""

import dataclasses
import inspect
import json
import math
import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densenet121.config import (
    AMP_NAMES,
    FREE_ON_RESUME,
    DemoConfig,
    EvalConfig,
    PredictConfig,
    ReportConfig,
    TrainConfig,
    absolute,
    default_workers,
    differences,
    flags_of,
    parse_image_size,
    settings_of,
)
from densenet121.config.files import read_settings
from densenet121.config.flags import explanations
from densenet121.utils.errors import UsageError
from densenet121.utils.resizing import default_eval_resize

REQUIRED = dataclasses.MISSING

TRAIN = {
    # the original's, with its defaults
    "data_dir": REQUIRED,
    "num_classes": None,
    "image_size": None,  # 224,224 unless the weights record another
    "per_batch_size": None,
    "gradient_accumulation": 1,
    "sync_batch_norm": 0,
    "gradient_compression": "none",
    "pretrained": None,
    "lr_scheduler": "cosine_annealing",
    "lr": 0.1,
    "lr_epochs": "30,60,90,120",
    "lr_gamma": 0.1,
    "eta_min": 0.0,
    "T_max": None,
    "max_epoch": 120,
    "warmup_epochs": 0.0,
    "weight_decay": 1e-4,
    "momentum": None,  # 0.9 with sgd
    "label_smooth": 0,
    "label_smooth_factor": 0.1,
    "log_interval": 100,
    "log_to": None,
    "ckpt_path": "output",
    "ckpt_interval": None,
    "is_save_on_master": 1,
    "is_distributed": 1,
    "rank": 0,
    "group_size": 1,
    # ours
    "timeout_seconds": 600.0,
    "exact": 1,
    "compile": "off",
    "cuda_graphs": 0,
    "recompute": 0,
    "triton": 0,
    "val_dir": None,
    "exclude": None,
    "small_size": None,
    "small_epochs": 0,
    "keep_checkpoint_max": 10,
    "amp": None,
    "variant": None,
    "net": "densenet121",
    "eval_resize": None,
    "depth": None,
    "window": None,
    "augment": "original",
    # None: as the preset, see test_augmentation.py
    "crop_scale": None,
    "crop_ratio": None,
    "flip_prob": None,
    "color_jitter": None,
    "policy": None,
    "rand_operations": None,
    "rand_magnitude": None,
    "rotate": None,
    "translate": None,
    "scale": None,
    "shear": None,
    "vflip_prob": None,
    "turns": None,
    "erase_prob": None,
    "erase_scale": None,
    "augment_fill": None,
    "augment_interpolation": None,
    "mixup": None,
    "cutmix": None,
    "mix_off_epochs": None,
    "seed": 1,
    "workers": None,
    "device": None,
    "on_bad_image": "error",
    "output_dir": None,
    "resume": None,
    "task": "single_label",
    "path_column": None,
    "image_dir": None,
    "labels": None,
    "label_column": None,
    "label_separator": None,
    "negative_label": None,
    "ignore_labels": None,
    "uncertain": None,
    "missing": None,
    "pos_weight": "none",
    "last_batch": "drop",
    "normalisation": "weights",
    "channels": None,
    "optimizer": "sgd",
    "betas": None,
    "eps": None,
    "amsgrad": 0,
    "clip_grad": None,
    "lr_power": 1.0,
    "plateau_patience": 5,
    "patience": None,
    "best_metric": None,
    "min_delta": 0.0,
    "val_interval": 1,
    "freeze": "none",
    "freeze_epochs": 0,
    "freeze_bn": "auto",
    "head_lr_mult": 1.0,
    "layer_lr_decay": 1.0,
    "ema_decay": None,
    "loss": "ce",
    "focal_gamma": None,
    "asl_gamma_neg": None,
    "asl_gamma_pos": None,
    "asl_clip": None,
    "class_weights": "none",
    "sampler": "uniform",
    "teacher": None,
    "distill_alpha": None,
    "distill_temperature": None,
}
EVAL = {
    "group": None,
    "by": None,
    "path_column": None,
    "image_dir": None,
    "labels": None,
    "label_column": None,
    "label_separator": None,
    "negative_label": None,
    "ignore_labels": None,
    "uncertain": None,
    "missing": None,
    "data_dir": REQUIRED,
    "pretrained": REQUIRED,
    "exclude": None,
    "num_classes": None,
    "image_size": None,
    "per_batch_size": None,
    "eval_resize": None,
    "depth": None,
    "window": None,
    "interpolation": None,
    "variant": None,
    "net": None,  # densenet121 for weights that do not record it
    "tta": None,
    "amp": None,
    "log_path": "output",
    "output_dir": None,
    "is_distributed": 1,
    "rank": 0,
    "group_size": 1,
    "timeout_seconds": 600.0,
    "workers": None,
    "device": None,
    "on_bad_image": "error",
}
DEMO = {"output_dir": None, "max_epoch": 10, "workers": None, "device": None}
TABLES = [(TrainConfig, TRAIN), (EvalConfig, EVAL), (DemoConfig, DEMO)]


def train_config(**settings: Any) -> TrainConfig:
    return TrainConfig(**{"data_dir": "data", **settings})


def eval_config(**settings: Any) -> EvalConfig:
    return EvalConfig(**{"data_dir": "data", "pretrained": "x.ckpt", **settings})


@pytest.mark.parametrize(("config", "table"), [*TABLES, (ReportConfig, {"run": REQUIRED})])
def test_flags_and_their_defaults_are_frozen(config: type[Any], table: dict[str, Any]) -> None:
    assert {field.name: field.default for field in dataclasses.fields(config)} == table


@pytest.mark.parametrize(("config", "table"), TABLES)
def test_every_flag_is_explained(config: type[Any], table: dict[str, Any]) -> None:
    meanings = {flag.name: flag.meaning for flag in flags_of(config)}
    assert meanings.keys() == table.keys()
    assert [name for name, meaning in meanings.items() if len(meaning) < 10] == []


@pytest.mark.parametrize(("config", "table"), TABLES)
def test_flags_have_their_texts_whether_python_indents_docstrings_or_not(
    config: type[Any], table: dict[str, Any]
) -> None:
    """Python 3.13 removes the indentation that 3.11 and 3.12 keep."""
    first, *rest = inspect.cleandoc(config.__doc__ or "").splitlines(keepends=True)
    bare, indented = (
        explanations(type("Config", (), {"__doc__": first + textwrap.indent("".join(rest), by)}))
        for by in ("", "    ")
    )
    assert bare == indented == explanations(config)
    own = inspect.get_annotations(config).keys() & table.keys()
    assert bare.keys() >= own


@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        ("cosine", {"lr_epochs": "10,20"}),
        ("one_cycle", {"lr_gamma": 0.5}),
        ("exponential", {"lr_power": 2.0}),
        ("constant", {"eta_min": 0.01}),
        ("cosine_annealing", {"plateau_patience": 3}),
        ("polynomial", {"T_max": 3}),
    ],
)
def test_a_setting_of_another_schedule_is_refused(schedule: str, settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(UsageError, match=f"^--{name} has no effect with --lr_scheduler {schedule}"):
        train_config(lr_scheduler=schedule, **settings)


@pytest.mark.parametrize("schedule", ["exponential", "cosine_annealing"])
def test_the_schedules_of_the_original_take_all_of_its_flags(schedule: str) -> None:
    settings = {"lr_epochs": "10,20", "lr_gamma": 0.5, "eta_min": 0.01, "T_max": 3}
    assert train_config(lr_scheduler=schedule, **settings).milestones == (10, 20)


def test_the_lowest_rate_of_the_default_schedule_is_not_above_the_base() -> None:
    with pytest.raises(UsageError, match=r"--eta_min must be at most --lr 0\.1, got 0\.2"):
        train_config(eta_min=0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data_dir": ""}, "--data_dir must name images, got an empty path"),
        ({"num_classes": 1}, "--num_classes must be at least 2 classes, got 1"),
        ({"image_size": 15}, "--image_size must be at least 16 pixels, got 15"),
        ({"small_size": 8, "small_epochs": 1}, "--small_size must be at least 16 pixels, got 8"),
        ({"small_size": 16}, "--small_size and --small_epochs need each other"),
        ({"small_epochs": 1}, "--small_size and --small_epochs need each other"),
        ({"small_epochs": -1}, "--small_epochs must be at least 0 epochs, got -1"),
        ({"per_batch_size": 0}, "--per_batch_size must be at least 1 image, got 0"),
        ({"lr": -0.1}, "--lr must be at least 0 .*, got -0.1"),
        ({"lr": math.nan}, "--lr must be at least 0 .*, got nan"),
        ({"lr": math.inf}, "--lr must be at least 0 .*, got inf"),
        ({"lr_epochs": "30,-60"}, "--lr_epochs must not be negative, got 30,-60"),
        ({"lr_epochs": "30,x"}, "--lr_epochs must be whole numbers .*, got '30,x'"),
        ({"lr_epochs": "3_0,60"}, "--lr_epochs must be whole numbers .*, got '3_0,60'"),
        (
            {"crop_scale": "0.0_8,1"},
            "--crop_scale must be numbers separated by commas, got '0.0_8,1'",
        ),
        ({"lr_epochs": ""}, "--lr_epochs must be whole numbers .*, got ''"),
        ({"lr_gamma": -1.0}, "--lr_gamma must be at least 0, got -1.0"),
        ({"eta_min": -1.0}, "--eta_min must be at least 0, got -1.0"),
        ({"T_max": 0}, "--T_max must be at least 1 epoch, got 0"),
        ({"max_epoch": 0}, "--max_epoch must be at least 1 epoch, got 0"),
        ({"warmup_epochs": -0.5}, "--warmup_epochs must be at least 0 epochs, got -0.5"),
        (
            {"warmup_epochs": 6, "max_epoch": 5},
            "--warmup_epochs 6 is more than --max_epoch 5",
        ),
        ({"weight_decay": -1e-4}, "--weight_decay must be at least 0, got -0.0001"),
        ({"momentum": 1.0}, "--momentum must be at least 0 and below 1, got 1.0"),
        ({"label_smooth_factor": 1.0}, "--label_smooth_factor must be at least 0 and below 1"),
        ({"log_interval": 0}, "--log_interval must be at least 1 step, got 0"),
        ({"ckpt_interval": 0}, "--ckpt_interval must be at least 1 step, got 0"),
        ({"keep_checkpoint_max": -1}, "--keep_checkpoint_max must be at least 0 .*, got -1"),
        ({"group_size": 0}, "--group_size must be at least 1 process, got 0"),
        ({"rank": -1}, "--rank must be at least 0 and less than --group_size 1, got -1"),
        ({"timeout_seconds": 1e10}, "--timeout_seconds must be at most 1000000000 .*got 1e.10"),
        ({"rank": 8, "group_size": 8}, "--rank must .* less than --group_size 8, got 8"),
        ({"crop_scale": "0,1"}, "--crop_scale must be 0 < smallest <= largest <= 1, got 0.0,1.0"),
        ({"crop_scale": "0.5"}, "--crop_scale must be 2 numbers separated by commas, got '0.5'"),
        ({"crop_ratio": "0,1"}, "--crop_ratio must be 0 < narrowest <= widest, got 0.0,1.0"),
        ({"crop_ratio": "1,inf"}, "--crop_ratio must be finite, got '1,inf'"),
        ({"flip_prob": 1.1}, "--flip_prob must be at least 0 and at most 1, got 1.1"),
        ({"color_jitter": "1,1,1.1"}, r"--color_jitter must be three numbers in \[0, 1\]"),
        ({"color_jitter": "0.4"}, "--color_jitter must be 3 numbers separated by commas"),
        ({"seed": -1}, "--seed must be at least 0 and at most 9223372036854775807, got -1"),
        ({"seed": 2**63}, "--seed must be at least 0 and at most 9223372036854775807"),
        ({"workers": -1}, "--workers must be at least 0 threads"),
    ],
)
def test_a_value_out_of_range_is_refused_by_the_name_of_its_flag(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        train_config(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pretrained": ""}, "--pretrained must name weights to evaluate, got an empty path"),
        ({"data_dir": ""}, "--data_dir must name images"),
        ({"num_classes": 1}, "--num_classes must be at least 2 classes, got 1"),
        ({"image_size": "224;224"}, "--image_size must be whole numbers"),
        ({"per_batch_size": 0}, "--per_batch_size must be at least 1 image, got 0"),
        ({"workers": -1}, "--workers must be at least 0 threads"),
        ({"rank": 1}, "--rank must be at least 0 and less than --group_size 1, got 1"),
    ],
)
def test_evaluation_refuses_the_same_values(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        eval_config(**settings)


@pytest.mark.parametrize("settings", [{"max_epoch": 0}, {"workers": -1}])
def test_the_demo_refuses_values_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^--{next(iter(settings))} must be at least "):
        DemoConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0, "eta_min": 0.0, "lr_gamma": 0.0, "weight_decay": 0.0, "momentum": 0.0},
        {"T_max": 1, "max_epoch": 1, "warmup_epochs": 1.0, "ckpt_interval": 1, "log_interval": 1},
        {"T_max": 200, "max_epoch": 1},  # a cosine that is left early, as in the original
        {"crop_scale": "1,1", "crop_ratio": "1,1", "color_jitter": "0,0,0", "flip_prob": 0.0},
        {"max_epoch": 10**400},  # more than a float can hold
        {"seed": 2**63 - 1, "workers": 0, "keep_checkpoint_max": 0, "image_size": 16},
        {"rank": 7, "group_size": 8, "num_classes": 2, "per_batch_size": 1},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(settings: dict[str, Any]) -> None:
    train_config(**settings)


def test_comma_lists_become_numbers() -> None:
    config = train_config(image_size="192, 256", lr_epochs="30,60", color_jitter="0.1,0.2,0.3")
    assert config.size == (192, 256)
    assert config.milestones == (30, 60)
    assert train_config(lr_epochs=30).milestones == (30,)
    assert config.pair("crop_scale") == (0.08, 1.0)
    assert config.pair("crop_ratio") == (0.75, 1.333)
    assert config.jitter_amounts == (0.1, 0.2, 0.3)


def test_small_images_come_first() -> None:
    assert train_config(small_size="96,128", small_epochs=3).small == (96, 128)
    assert train_config().small is None


def test_labels_are_smoothed_only_when_asked() -> None:
    assert train_config(label_smooth_factor=0.2).smooth_factor == 0.0
    assert train_config(label_smooth_factor=0.2, label_smooth=1).smooth_factor == 0.2


def test_image_size_is_height_and_width() -> None:
    assert parse_image_size("224,224") == (224, 224)
    assert parse_image_size("192,256") == (192, 256)
    assert parse_image_size("224") == parse_image_size(224) == (224, 224)


@pytest.mark.parametrize("bad", ["", "a", "224x224", "224,", "1.5", "224,224,3", "-224", 0, "9,32"])
def test_any_other_image_size_is_refused(bad: int | str) -> None:
    with pytest.raises(UsageError, match=r"^--image_size must be "):
        parse_image_size(bad)


@given(st.one_of(st.text(), st.integers(), st.lists(st.integers()).map(lambda x: str(x)[1:-1])))
def test_an_image_size_is_read_or_refused_never_misread(value: int | str) -> None:
    try:
        height, width = parse_image_size(value)
    except UsageError:
        return
    assert min(height, width) >= 16
    assert [int(part) for part in str(value).split(",")] in ([height], [height, width])


def test_evaluation_resizes_in_the_proportion_of_256_to_224() -> None:
    assert default_eval_resize((224, 224)) == "256,256"
    assert default_eval_resize((32, 64)) == "37,73"  # 36.57 and 73.14
    assert default_eval_resize((448, 224)) == "512,256"


def test_amp_levels_of_the_original_have_a_meaning() -> None:
    assert AMP_NAMES == {"O0": "fp32", "O2": "bf16", "O3": "fp16"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("33%", "must be a whole number of epochs, 0 for the whole run, or auto, got '33%'"),
        (-1, "must be at least 0 "),
        (5, "must be less than --max_epoch 5 "),
    ],
)
def test_a_freeze_of_no_or_all_epochs_is_refused(given: int | str, message: str) -> None:
    settings = {"freeze": "block4", "pretrained": "w", "max_epoch": 5}
    with pytest.raises(UsageError, match=f"^--freeze_epochs {message}"):
        train_config(**settings, freeze_epochs=given)


def test_what_may_change_on_resuming_are_flags() -> None:
    assert set(TRAIN) >= FREE_ON_RESUME


def test_only_changes_that_change_numbers_are_differences() -> None:
    before = settings_of(train_config())
    assert differences(before, settings_of(train_config())) == []
    free: dict[str, Any] = {name: "another" for name in FREE_ON_RESUME}
    assert differences(before, before | free) == []
    now = settings_of(train_config(lr=0.2, T_max=10))
    assert differences(before, now) == ["--lr was 0.1, is now 0.2", "--T_max was None, is now 10"]


def test_a_rank_or_another_way_to_start_the_processes_is_no_difference() -> None:
    """Each rank may be told its number; the checkpoint has that of rank 0."""
    before = settings_of(train_config())
    of_rank_1 = {"rank": 1, "group_size": 2, "is_distributed": 0}
    assert differences(before, before | of_rank_1) == []


def test_a_flag_that_an_older_run_did_not_know_is_no_difference() -> None:
    before = settings_of(train_config())
    assert differences(before, before | {"flag_of_tomorrow": 1}) == []


def test_settings_cannot_be_changed_and_are_plain_values() -> None:
    config = train_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0  # type: ignore[misc]
    assert settings_of(config) == {**TRAIN, "data_dir": "data"}


def test_paths_become_absolute_with_links_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute("link/x/../y") == tmp_path / "link" / "y"
    assert absolute("~/x") == Path("/home/somebody/x")
    assert absolute("/a") == Path("/a")
    assert absolute("~of no user/x") == tmp_path / "~of no user" / "x"
    assert absolute(".") == absolute("") == tmp_path


def test_default_workers_are_the_cores_of_this_process() -> None:
    assert 1 <= default_workers() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("settings", [{"label_smooth": 2}, {"net": "resnet50"}, {"amp": "fp8"}])
def test_a_choice_that_is_not_offered_is_refused_from_python_too(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(UsageError, match=f"^--{name} must be one of .*, got {settings[name]}$"):
        TrainConfig(data_dir="pictures", **settings)


def test_numbers_of_numpy_and_paths_become_plain() -> None:
    passed: dict[str, Any] = {
        "data_dir": Path("pictures"),
        "pretrained": Path("w.safetensors"),
        "max_epoch": np.int64(3),
        "lr": np.float32(0.5),
        "workers": 2.0,
        "image_size": np.int32(64),
        "label_smooth": np.bool_(True),
    }
    plain: dict[str, Any] = {
        "data_dir": "pictures",
        "pretrained": "w.safetensors",
        "max_epoch": 3,
        "lr": 0.5,
        "workers": 2,
        "image_size": 64,
        "label_smooth": 1,
    }
    config, expected = TrainConfig(**passed), TrainConfig(**plain)
    assert config == expected
    text = json.dumps(settings_of(config))
    assert json.loads(text) == json.loads(json.dumps(settings_of(expected)))
    inputs = PredictConfig(inputs=[Path("a.png")], pretrained="w")  # type: ignore[list-item]
    assert inputs.inputs == ["a.png"]
    alone = PredictConfig(inputs=Path("a.png"), pretrained="w")  # type: ignore[arg-type]
    assert alone.inputs == ["a.png"]


@pytest.mark.parametrize(
    ("setting", "given", "text"),
    [
        ("image_size", (224, 320), "224,320"),
        ("image_size", np.array([64, 32]), "64,32"),
        ("crop_scale", [0.6, np.float64(1)], "0.6,1.0"),
        ("lr_epochs", [2, 4], "2,4"),
        ("val_dir", 7, "7"),
    ],
)
def test_several_numbers_of_one_setting_are_its_text(setting: str, given: Any, text: str) -> None:
    settings: dict[str, Any] = {setting: given}
    assert getattr(TrainConfig(data_dir="pictures", **settings), setting) == text


OPTIMIZERS = "sgd, nesterov, adam, adamw, rmsprop"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": "0.1"}, "--lr must be a number, got '0.1'"),
        ({"max_epoch": "3"}, "--max_epoch must be a whole number, got '3'"),
        ({"max_epoch": 1.5}, "--max_epoch must be a whole number, got 1.5"),
        ({"flip_prob": [0.5]}, "--flip_prob must be a number, got [0.5]"),
        ({"val_dir": ["a", "b"]}, "--val_dir must be text, got ['a', 'b']"),
        ({"image_size": ("a", "b")}, "--image_size must be text, got ('a', 'b')"),
        ({"image_size": ()}, "--image_size must be text, got ()"),
        ({"image_size": True}, "--image_size must be text, got True"),
        ({"val_dir": b"a"}, "--val_dir must be text, got b'a'"),
        ({"resume": True}, "--resume must be text, got True"),
        ({"lr": True}, "--lr must be a number, got True"),
        ({"max_epoch": True}, "--max_epoch must be a whole number, got True"),
        ({"channels": True}, "--channels must be one of 1, 3, got True"),
        ({"weight_decay": None}, "--weight_decay must be a number, got None"),
        ({"max_epoch": None}, "--max_epoch must be a whole number, got None"),
        ({"loss": None}, "--loss must be one of ce, focal, asl, got None"),
        ({"optimizer": None}, f"--optimizer must be one of {OPTIMIZERS}, got None"),
    ],
)
def test_a_value_of_another_type_is_refused_from_python(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        TrainConfig(data_dir="pictures", **settings)
    assert str(caught.value) == message


@pytest.mark.parametrize("escape", ["\\0", "\\ud800"])
@pytest.mark.parametrize(
    ("config", "setting", "others"),
    [
        (TrainConfig, "data_dir", {}),
        (TrainConfig, "teacher", {"data_dir": "images"}),
        (PredictConfig, "inputs", {"pretrained": "w.safetensors"}),
    ],
)
def test_text_that_no_file_can_be_called_is_refused(
    config: type[Any], setting: str, others: dict[str, Any], escape: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f'{setting}: "a{escape}b"\n')
    settings = read_settings(str(file), config)
    with pytest.raises(UsageError, match=rf"--{setting}|{setting.upper()} has a NUL character or"):
        config(**others, **settings)


def test_bytes_of_a_path_that_are_not_utf_8_are_taken() -> None:
    assert TrainConfig(data_dir=os.fsdecode(b"a\xff")).data_dir == "a\udcff"
