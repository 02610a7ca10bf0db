"""Settings of augmentation: presets, what overrides them, and what is refused."""

from typing import Any

import pytest

from densenet121.config import TrainConfig, differences, effective, settings_of
from densenet121.config.arguments import parse_settings
from densenet121.config.augmentation import PRESETS
from densenet121.utils.errors import UsageError

ORIGINAL = {
    "crop_scale": "0.08,1.0",
    "crop_ratio": "0.75,1.333",
    "flip_prob": 0.5,
    "color_jitter": "0.4,0.4,0.4",
}
OFF = {
    "policy": "none",
    "rotate": 0.0,
    "translate": 0.0,
    "scale": "1.0,1.0",
    "shear": 0.0,
    "vflip_prob": 0.0,
    "turns": 0,
    "erase_prob": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "mix_off_epochs": 0,
}


def train_config(**settings: Any) -> TrainConfig:
    return TrainConfig(**{"data_dir": "data", **settings})


def used(**settings: Any) -> dict[str, Any]:
    return effective(settings_of(train_config(**settings)))


def test_without_flags_augmentation_is_the_originals() -> None:
    assert used().items() >= (ORIGINAL | OFF).items()
    assert used(augment="original") == used()


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        (
            "none",
            {
                "crop_scale": "1,1",
                "crop_ratio": "0.0001,10000",
                "flip_prob": 0.0,
                "color_jitter": "0,0,0",
            },
        ),
        ("light", {"crop_scale": "0.5,1.0", "color_jitter": "0.2,0.2,0.2"}),
        ("trivial", {"policy": "trivial", "color_jitter": "0,0,0"}),
        ("rand", {"policy": "rand", "color_jitter": "0,0,0"}),
    ],
)
def test_a_preset_changes_these_values_and_no_others(preset: str, changed: dict[str, Any]) -> None:
    found, before = used(augment=preset), used()
    assert {n: v for n, v in found.items() if before[n] != v} == changed | {"augment": preset}


def test_every_setting_has_a_value_in_every_preset() -> None:
    names = [name for name, value in settings_of(train_config()).items() if value is None]
    of_group = set(PRESETS["original"])
    assert of_group <= set(names)
    assert all(set(preset) == of_group for preset in PRESETS.values())


def test_a_given_value_overrides_that_of_the_preset() -> None:
    config = train_config(augment="trivial", flip_prob=0.0, color_jitter="0.1,0.1,0.1", rotate=5.0)
    assert config.chosen("policy") == "trivial"
    assert (config.chosen("flip_prob"), config.chosen("rotate")) == (0.0, 5.0)
    assert config.jitter_amounts == (0.1, 0.1, 0.1)
    assert train_config(augment="trivial", policy="none").chosen("policy") == "none"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment": "heavy"}, "--augment must be one of none, light, .*, got heavy"),
        ({"policy": "auto"}, "--policy must be one of none, trivial, rand, got auto"),
        ({"augment_fill": "grey"}, "--augment_fill must be one of mean, black, got grey"),
        ({"vflip_prob": -0.1}, "--vflip_prob must be at least 0 and at most 1, got -0.1"),
        ({"erase_prob": 1.5}, "--erase_prob must be at least 0 and at most 1, got 1.5"),
        ({"translate": 1.1}, "--translate must be at least 0 and at most 1, got 1.1"),
        ({"rotate": 181.0}, "--rotate must be at least 0 and at most 180, got 181.0"),
        ({"shear": 90.0}, "--shear must be at least 0 and below 90, got 90.0"),
        ({"scale": "0,1"}, "--scale must be 0.1 <= smallest <= largest <= 10, got 0.0,1.0"),
        ({"scale": "1.2"}, "--scale must be 2 numbers separated by commas, got '1.2'"),
        (
            {"erase_prob": 0.5, "erase_scale": "0.3,0.2"},
            "--erase_scale must be 0 < smallest <= largest <= 1, got 0.3,0.2",
        ),
        (
            {"augment": "rand", "rand_magnitude": 31},
            "--rand_magnitude must be at least 0 and at most 30, got 31",
        ),
        (
            {"augment": "rand", "rand_operations": 0},
            "--rand_operations must be at least 1 and at most 10, got 0",
        ),
        ({"mixup": -0.2}, "--mixup must be at least 0, got -0.2"),
        ({"cutmix": float("nan")}, "--cutmix must be at least 0, got nan"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        train_config(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rand_magnitude": 5}, "--rand_magnitude needs --policy rand, got --policy none"),
        (
            {"augment": "trivial", "rand_operations": 3},
            "--rand_operations needs --policy rand, got --policy trivial",
        ),
        ({"erase_scale": "0.1,0.2"}, "--erase_scale has no effect without --erase_prob; omit it"),
        (
            {"augment_fill": "black"},
            "--augment_fill has no effect without --policy or --rotate or .* or --shear; omit it",
        ),
        (
            {"scale": "1,1", "augment_interpolation": "nearest"},
            "--augment_interpolation has no effect without .*",
        ),
        ({"mix_off_epochs": 3}, "--mix_off_epochs has no effect without --mixup or --cutmix.*"),
        (
            {"mixup": 0.2, "mix_off_epochs": 5, "max_epoch": 5},
            "--mix_off_epochs 5 leaves no epoch of --max_epoch 5 with --mixup or --cutmix",
        ),
        ({"turns": 1, "vflip_prob": 0.5}, "--vflip_prob 0.5 has no effect with --turns 1.*"),
    ],
)
def test_contradictions_are_refused_with_both_names(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        train_config(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"rotate": 180.0, "translate": 1.0, "scale": "0.1,10", "shear": 89.9},
        {"augment": "rand", "rand_operations": 10, "rand_magnitude": 0, "augment_fill": "black"},
        {"mixup": 0.2, "cutmix": 1.0, "mix_off_epochs": 4, "max_epoch": 5},
        {"scale": "0.9,0.9", "augment_interpolation": "nearest"},
        {"turns": 1, "vflip_prob": 0.0},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(settings: dict[str, Any]) -> None:
    train_config(**settings)


def test_a_preset_that_is_given_replaces_the_recipes_augmentation_and_no_more() -> None:
    config = TrainConfig.from_recipe("finetune", data_dir="data", pretrained="x")
    assert config.chosen("crop_scale") == "0.35,1.0"
    config = TrainConfig.from_recipe("finetune", data_dir="data", pretrained="x", augment="trivial")
    assert effective(settings_of(config)).items() >= PRESETS["trivial"].items()
    assert config.optimizer == "adamw"
    flags = ["--data_dir", "data", "--recipe", "scratch_small", "--augment", "rand"]
    parsed = parse_settings("train", TrainConfig, [*flags, "--crop_scale", "0.5,1"])
    assert (parsed.chosen("crop_scale"), parsed.jitter_amounts) == ("0.5,1", (0, 0, 0))


def test_a_resumed_run_compares_the_values_that_are_used() -> None:
    given = settings_of(train_config(**ORIGINAL))
    assert differences(given, settings_of(train_config())) == []
    assert differences(effective(given), settings_of(train_config(augment="original"))) == []
    same = settings_of(train_config(augment="light", color_jitter="0.4,0.4,0.4"))
    assert differences(settings_of(train_config()), same) == [
        "--crop_scale was 0.08,1.0, is now 0.5,1.0"
    ]


def test_a_run_from_before_the_presets_had_the_originals_augmentation() -> None:
    now = settings_of(train_config())
    old = {name: value for name, value in now.items() if name not in PRESETS["original"]}
    del old["augment"]
    old |= ORIGINAL
    assert differences(old, now) == []
    assert differences(old | {"flip_prob": 0.0}, settings_of(train_config(flip_prob=0.0))) == []
    assert differences(old, settings_of(train_config(augment="trivial", mixup=0.2))) == [
        "--color_jitter was 0.4,0.4,0.4, is now 0,0,0",
        "--policy was none, is now trivial",
        "--mixup was 0.0, is now 0.2",
    ]
