"""Hugging Face folders: written whole or not at all, read as they say, contradictions refused."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from densenet121 import Predictor
from densenet121.card import weights_card
from densenet121.checkpoint.foreign.timm_config import make_config, read_config
from densenet121.checkpoint.hugging_face import write_hugging_face
from densenet121.checkpoint.inspect import inspect
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import ModelInfo, save_weights
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.engine.evaluate import evaluate
from densenet121.network import build
from densenet121.utils.errors import InputError, UsageError

from helpers.commands import no_file_beyond, run_command
from helpers.images import write_classes
from helpers.weights import eval_config

NAMES = ("ant", "bee", "cat | <b>dog</b>")
SMALL = Preprocessing((32, 32), "37,37")
INFO = ModelInfo("densenet121", "paper", NAMES, SMALL)
# The config.json of timm/densenet121.ra_in1k on the hub, and what its classes would look like.
THEIRS: dict[str, Any] = {
    "architecture": "densenet121",
    "num_classes": 3,
    "num_features": 1024,
    "label_names": list(NAMES),
    "pretrained_cfg": {
        "tag": "ra_in1k",
        "custom_load": False,
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "test_crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 3,
        "pool_size": [7, 7],
        "first_conv": "features.conv0",
        "classifier": "classifier",
    },
}


def page(info: ModelInfo, family: str, notes: Sequence[str]) -> str:
    return weights_card(info, "Three animals", f"From {family}.", notes)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    model = build("densenet121", num_classes=3)
    note = {"train": {"pictures": 5, "fingerprint": "f", "folder": "g"}}
    save_weights(path, model.state_dict(), INFO, {"epoch": 3}, {"temperature": 1.5}, note)
    return path


@pytest.fixture
def folder(weights: Path, tmp_path: Path) -> Path:
    write_hugging_face(weights, tmp_path / "model", page)
    return tmp_path / "model"


def theirs(folder: Path, **changes: Any) -> Path:
    """A folder as timm writes it: plain safetensors and config.json."""
    folder.mkdir()
    config = {**THEIRS, "pretrained_cfg": {**THEIRS["pretrained_cfg"], **changes.pop("inner", {})}}
    (folder / "config.json").write_text(json.dumps(config | changes))
    state = build("densenet121", num_classes=3).state_dict()
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_folder_is_the_weights_bit_for_bit_with_all_they_record(
    weights: Path, folder: Path
) -> None:
    before, after = read_weights(weights), read_weights(folder)
    assert (after.info, after.origin, after.data) == (INFO, before.origin, before.data)
    assert after.calibration == before.calibration
    assert before.state_dict.keys() == after.state_dict.keys()
    for name, tensor in before.state_dict.items():
        assert torch.equal(tensor, after.state_dict[name])
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert f"{folder}/model.safetensors" in inspect(folder).splitlines()[0]


def test_other_programs_find_plain_safetensors_of_torch(weights: Path, folder: Path) -> None:
    plain = safetensors.torch.load_file(folder / "model.safetensors")
    assert plain.keys() == read_weights(weights).state_dict.keys()
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"


def test_the_same_weights_give_the_same_bytes(weights: Path, folder: Path, tmp_path: Path) -> None:
    write_hugging_face(weights, tmp_path / "again", page)
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_the_page_has_the_hubs_metadata_and_names_are_only_text(folder: Path) -> None:
    import yaml

    _, block, text = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(block)["library_name"] == "timm"
    assert "# Three animals" in text
    assert r"ant, bee, cat \| \<b\>dog\</b\>" in text
    assert "without the calibration" in text


def test_a_folder_of_timm_is_read_as_its_config_says(tmp_path: Path) -> None:
    found = read_weights(theirs(tmp_path / "timm"))
    assert found.family == "timm"
    assert found.variant_is_certain
    assert found.info is not None
    assert (found.info.class_names, found.info.task) == (NAMES, "single_label")
    p = found.info.preprocessing
    assert (p.image_size, p.eval_resize, p.interpolation) == (
        (224, 224),
        "short:256",
        "pillow_bicubic",
    )
    assert p.mean == (0.485 * 255, 0.456 * 255, 0.406 * 255)


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({"problem_type": "multi_label_classification"}, "multilabel"),
        (
            {"problem_type": None, "label_names": {"0": "ant", "1": "bee", "2": NAMES[2]}},
            "single_label",
        ),
    ],
)
def test_labels_are_read_in_each_form(changes: dict[str, Any], task: str, tmp_path: Path) -> None:
    info = read_weights(theirs(tmp_path / "timm", **changes)).info
    assert info is not None
    assert (info.class_names, info.task) == (NAMES, task)


@pytest.mark.parametrize(
    ("inner", "resize"),
    [
        ({"crop_mode": "squash"}, "256,256"),
        ({"crop_mode": "border", "crop_pct": 1.0}, "pad:224,224"),
        ({"input_size": [3, 192, 192], "crop_pct": 0.9}, "short:213"),
    ],
)
def test_each_crop_mode_of_timm_has_its_resize_here(
    inner: dict[str, Any], resize: str, tmp_path: Path
) -> None:
    info = read_weights(theirs(tmp_path / "timm", inner=inner)).info
    assert info is not None
    assert info.preprocessing.eval_resize == resize


@pytest.mark.parametrize(
    ("mean", "std", "levels", "is_assumed"),
    [
        ([0.5] * 3, [0.25] * 3, (127.5, 63.75), False),
        ([0.5], [0.25], (127.5, 63.75), False),
        ([0.25, 0.5, 0.75], [0.25] * 3, (127.5, 63.75), True),
        ([0.5] * 3, [0.125, 0.25, 0.375], (127.5, 63.75), True),
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], (114.495, 57.63), True),
    ],
)
def test_one_channel_is_normalised_as_by_timm(
    mean: list[float],
    std: list[float],
    levels: tuple[float, float],
    is_assumed: bool,
    tmp_path: Path,
) -> None:
    """timm's ``adapt_to_chs``: three values for one channel become their mean."""
    (tmp_path / "grey").mkdir()
    torch.manual_seed(0)
    tensors = build("densenet121", num_classes=3, in_channels=1).state_dict()
    safetensors.torch.save_file(tensors, tmp_path / "grey" / "model.safetensors")
    inner = THEIRS["pretrained_cfg"] | {"input_size": [1, 224, 224], "mean": mean, "std": std}
    text = json.dumps(THEIRS | {"pretrained_cfg": inner})
    (tmp_path / "grey" / "config.json").write_text(text)
    weights = read_weights(tmp_path / "grey")
    assert weights.info is not None
    p = weights.info.preprocessing
    assert (*p.mean, *p.std) == pytest.approx(levels)
    assert any("their means are used, as timm's loader does" in n for n in weights.notes) == (
        is_assumed
    )
    assert not any("does not record it" in note for note in weights.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_names": ["ant", "bee"]}, "has 2 label_names, but the network .* has 3 outputs"),
        ({"label_names": [1, 2, 3]}, "its pretrained_cfg is not in timm's format"),
        ({"inner": {"interpolation": "lanczos"}}, 'interpolation must be .* got "lanczos"'),
        ({"inner": {"crop_pct": 0}}, "its pretrained_cfg is not in timm's format"),
        ({"inner": {"crop_mode": "round"}}, "its pretrained_cfg is not in timm's format"),
        ({"inner": {"mean": [0.5]}}, "its pretrained_cfg is not in timm's format"),
        ({"inner": {"mean": [0.5, 0.5, 1e999]}}, "its pretrained_cfg is not in timm's format"),
        ({"inner": {"std": [0.5, 0.5, 0]}}, "its pretrained_cfg is not in timm's format"),
        ({"inner": {"input_size": [3, 0, 64]}}, "its pretrained_cfg is not in timm's format"),
        ({"inner": {"crop_pct": -1}}, "its input_size, crop_pct and crop_mode: "),
        ({"inner": {"crop_pct": 2}}, "its input_size, crop_pct and crop_mode: .* smaller"),
        ({"label_names": ["a", "b", "\ud800"]}, "its pretrained_cfg is not in timm's format"),
        ({"model_args": {"act_layer": "silu"}}, 'its network has act_layer "silu", not "relu", '),
        ({"model_args": {"norm_layer": "frn"}}, 'its network has norm_layer "frn", not "batch'),
        ({"model_args": {"aa_layer": "blurpool"}}, 'its network has aa_layer "blurpool", not none'),
        ({"model_args": ["silu"]}, "its pretrained_cfg is not in timm's format"),
        ({"global_pool": 5}, "its pretrained_cfg is not in timm's format"),
    ],
)
def test_a_config_that_cannot_be_followed_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"config.json: {message}"):
        read_weights(theirs(tmp_path / "timm", **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"global_pool": "max"},
        {"global_pool": "avg", "model_args": {"num_classes": 3, "global_pool": "avgmax"}},
    ],
)
def test_a_classifier_after_another_pooling_of_timm_is_another_head(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    """As timm's ``save_for_hf`` writes it; the tensors are those of the network with averages."""
    found = read_weights(theirs(tmp_path / "timm", **changes))
    assert found.num_classes is None
    with pytest.raises(InputError, match=r"head is another .*global_pool (avg)?max\.classifier"):
        found.check_head(tmp_path / "timm")


@pytest.mark.parametrize(
    "changes",
    [
        {"global_pool": "avg", "model_args": {"num_classes": 3, "in_chans": 3}},
        {"model_args": {"act_layer": "relu", "norm_layer": "batchnorm2d", "global_pool": "fast"}},
        {"model_args": None},
    ],
)
def test_arguments_of_timm_that_are_ours_change_nothing(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    assert read_weights(theirs(tmp_path / "timm", **changes)).num_classes == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_names": ["x", "y", "z"]}, "label_names is .* was written with"),
        ({"num_classes": 4}, "num_classes is 4, but model.safetensors was written with 3"),
        ({"problem_type": "multi_label_classification"}, "problem_type is"),
        ({"inner": {"interpolation": "bicubic"}}, 'interpolation is "bicubic", but .* "bilinear"'),
        ({"inner": {"crop_pct": 0.5}}, "crop_pct is 0.5"),
    ],
)
def test_our_folder_with_another_config_is_refused(
    change: dict[str, Any], message: str, folder: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= change.pop("inner", {})
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=f"config.json: {message}"):
        read_weights(folder)
    (folder / "config.json").unlink()  # what the message advises
    assert read_weights(folder / "model.safetensors").info == INFO


def test_a_config_cut_anywhere_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    whole = json.dumps(THEIRS)
    for length in range(len(whole)):
        (tmp_path / "x" / "config.json").write_text(whole[:length])
        with pytest.raises(InputError, match=r"config\.json: is damaged .* move it away") as caught:
            read_config(tmp_path / "x" / "model.safetensors")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_that_an_editor_wrote_with_a_byte_order_mark_is_obeyed(
    encoding: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(THEIRS), encoding=encoding)
    found = read_config(tmp_path / "model.safetensors")
    assert found is not None
    assert found.preprocessing.interpolation == "pillow_bicubic"


def test_a_config_of_another_network_is_passed_over(tmp_path: Path) -> None:
    for text in ('{"architecture": "resnet50"}', '{"lr": 1}', "[]", '{"architecture": 5}'):
        (tmp_path / "config.json").write_text(text)
        assert read_config(tmp_path / "model.safetensors") is None


@given(st.data())
def test_a_changed_config_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("config")
    json_values = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.floats())
    )
    config = json.loads(json.dumps(THEIRS))
    place = data.draw(st.sampled_from([config, config["pretrained_cfg"]]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    (folder / "config.json").write_text(json.dumps(config))
    try:
        read_config(folder / "model.safetensors")
    except InputError as error:
        assert "\n" not in str(error)


sides = st.integers(32, 512)


@given(sides, st.integers(0, 300), st.sampled_from(["short:{}", "pad:{0}", "{0},{0}"]))
def test_every_square_resize_is_the_same_after_timms_rounding(
    side: int, more: int, form: str
) -> None:
    """timm resizes to floor(side / crop_pct), see data/transforms_factory.py."""
    p = replace(SMALL, image_size=(side, side), eval_resize=form.format(side + more))
    config, notes = make_config(replace(INFO, preprocessing=p), 3)
    assert math.floor(side / config["pretrained_cfg"]["crop_pct"]) == side + more
    assert len(notes) == 1  # OpenCV's bilinear


@given(sides, sides, st.integers(0, 300), st.integers(0, 300))
def test_a_resize_that_timm_cannot_do_is_said(
    height: int, width: int, down: int, right: int
) -> None:
    resized = (height + down, width + right)
    p = replace(SMALL, image_size=(height, width), eval_resize=f"{resized[0]},{resized[1]}")
    config, notes = make_config(replace(INFO, preprocessing=p), 3)
    crop_pct = config["pretrained_cfg"]["crop_pct"]
    same = (math.floor(height / crop_pct), math.floor(width / crop_pct)) == resized
    assert same == (not any("cannot resize" in note for note in notes))


@pytest.mark.parametrize("interpolation", ["pillow_bilinear", "pillow_bicubic", "pillow_nearest"])
def test_preprocessing_by_pillow_is_read_back_from_the_config_alone(
    interpolation: str, tmp_path: Path
) -> None:
    p = Preprocessing((224, 224), "short:256", interpolation=interpolation)
    config, notes = make_config(replace(INFO, preprocessing=p), 3)
    assert notes == []
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read_config(tmp_path / "model.safetensors")
    assert found is not None
    assert found.class_names == NAMES
    back = found.preprocessing
    assert back.mean == pytest.approx(p.mean, rel=1e-7)
    assert replace(back, mean=p.mean, std=p.std) == p


def test_a_folder_that_has_files_is_not_touched(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="full: has files already"):
        write_hugging_face(weights, tmp_path / "full", page)
    with pytest.raises(UsageError, match=r"notes\.txt: is a file; name a folder"):
        write_hugging_face(weights, tmp_path / "full" / "notes.txt", page)
    with pytest.raises(UsageError, match="nowhere: there is no such folder"):
        write_hugging_face(weights, tmp_path / "nowhere" / "model", page)
    assert [file.name for file in tmp_path.iterdir()] == ["full"]
    (tmp_path / "empty").mkdir()
    write_hugging_face(weights, tmp_path / "empty", page)
    assert read_weights(tmp_path / "empty").info == INFO


def test_a_full_disk_leaves_no_folder(weights: Path, tmp_path: Path) -> None:
    with no_file_beyond(2**20), pytest.raises(OSError, match="File too large"):
        write_hugging_face(weights, tmp_path / "model", page)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("net", "change", "message"),
    [
        ("densenet100", {}, "densenet100 is not a network of timm"),
        ("densenet121", {"variant": "model_zoo"}, "variant model_zoo give wrong results in timm"),
        ("densenet121", {"task": "ordinal"}, "the task ordinal is none of transformers"),
    ],
)
def test_what_timm_would_get_wrong_is_refused(
    net: str, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    info = replace(INFO, net=net, **change)
    state = build(net, num_classes=3, variant=info.variant).state_dict()
    save_weights(tmp_path / "w.safetensors", state, info, {})
    with pytest.raises(InputError, match=rf"w\.safetensors: .*{message}"):
        write_hugging_face(tmp_path / "w.safetensors", tmp_path / "model", page)
    assert not (tmp_path / "model").exists()


def test_a_folder_evaluates_as_its_weights_do(weights: Path, folder: Path, tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", ["ant", "bee"], 2)
    results = []
    state, info = read_weights(weights).state_dict, replace(INFO, class_names=("ant", "bee", "cow"))
    save_weights(tmp_path / "w.safetensors", state, info, {})
    write_hugging_face(tmp_path / "w.safetensors", tmp_path / "hub", page)
    for source in (tmp_path / "w.safetensors", tmp_path / "hub"):
        done = evaluate(eval_config(data, source, tmp_path / f"eval_{source.name}"))
        results.append((done.folder / "predictions.csv").read_bytes())
    assert results[0] == results[1]
    image = next(data.rglob("*.png"))
    probabilities = [
        Predictor(source, device="cpu", amp="fp32")([image])[0]
        for source in (tmp_path / "w.safetensors", tmp_path / "hub")
    ]
    assert probabilities[0] == probabilities[1]


def test_the_command_writes_a_folder_and_says_what_differs(weights: Path, tmp_path: Path) -> None:
    done = run_command("convert", weights, tmp_path / "model", "--to", "huggingface")
    assert done.returncode == 0, done.stderr
    assert "all 727 tensors are bit-identical after reading back" in done.stdout
    assert "note: timm and transformers resize by Pillow's bilinear" in done.stdout
    again = run_command("convert", weights, tmp_path / "model", "--to", "huggingface")
    assert again.returncode == 2
    assert "model: has files already; name a new folder or an empty one" in again.stderr
    grey = run_command(
        "convert", weights, tmp_path / "grey", "--to", "huggingface", "--channels", "1"
    )
    assert grey.returncode == 2
    assert "--channels 1 cannot be written with --to huggingface" in grey.stderr
