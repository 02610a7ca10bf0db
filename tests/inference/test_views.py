"""Test-time augmentation: the mean over views against a plain loop, in eval, predict and serve."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from densenet121 import cli
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.native import save_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.commands.calibrate import calibrate
from densenet121.config import CalibrateConfig
from densenet121.datasets.decoding import read_image
from densenet121.datasets.eval_resize import parse_eval_resize
from densenet121.datasets.preprocessing import Preprocessing
from densenet121.datasets.transforms import MEAN, STD, EvalTransform, normalise
from densenet121.datasets.views import VIEWS, views_of
from densenet121.engine.evaluate import evaluate
from densenet121.inference.predictor import Predictor
from densenet121.tasks import MultiLabel, SingleLabel
from densenet121.tasks.single_label.calibration import probabilities
from densenet121.utils.errors import InputError, UsageError

from helpers.weights import eval_config, write_weights

Pixels = NDArray[np.uint8]
TTA = ["flip", "dihedral", "ten_crop"]
SIDE = 16


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With logits that differ by about 1, so that no class takes all."""
    file = write_weights(tmp_path_factory.mktemp("weights") / "w.safetensors")
    found = read_weights(file)
    assert found.info is not None
    classifier = found.state_dict["classifier.weight"]
    model = load_pretrained(file).model.eval()
    with torch.inference_mode():
        spread = model(torch.randn(8, 3, SIDE, SIDE, generator=torch.manual_seed(1))).std()
    state = {**found.state_dict, "classifier.weight": classifier / spread}
    save_weights(file, state, found.info, {})
    return file


def plain_views(path: Path, tta: str, interpolation: str = "opencv_bilinear") -> list[Pixels]:
    """Each view on its own, by numpy and Pillow's crop: what the modes are defined as."""
    if tta == "ten_crop":
        whole = EvalTransform(20, 20, parse_eval_resize("20,20"), interpolation)(read_image(path))
        resized = Image.fromarray(np.ascontiguousarray(whole))
        places = [(2, 2), (0, 0), (4, 0), (0, 4), (4, 4)]
        crops = [
            np.asarray(resized.crop((left, top, left + SIDE, top + SIDE))) for left, top in places
        ]
        return [*crops, *(crop[:, ::-1] for crop in crops)]
    transform = EvalTransform(SIDE, SIDE, parse_eval_resize("20,20"), interpolation)
    crop = transform(read_image(path))
    if tta == "flip":
        return [crop, crop[:, ::-1]]
    sides = [crop, crop[:, ::-1]] if tta == "dihedral" else [crop]
    return [np.rot90(side, k) for side in sides for k in range(4 if tta == "dihedral" else 1)]


@torch.inference_mode()
def plain_loop(weights: Path, path: Path, tta: str) -> NDArray[np.float64]:
    """The mean of the softmax, one view and one forward pass at a time."""
    model = load_pretrained(weights).model.eval()
    shares = []
    for view in plain_views(path, tta):
        x = normalise(torch.from_numpy(view.copy())[None], MEAN, STD)
        shares.append(model(x).double().softmax(dim=1).numpy()[0])
    return np.asarray(np.mean(shares, axis=0), dtype=np.float64)


@pytest.mark.parametrize("tta", ["none", *TTA])
def test_predict_gives_the_mean_of_the_probabilities(
    weights: Path, image_folder: Path, tta: str
) -> None:
    paths = sorted((image_folder / "val").glob("*/*.png"))[:5]
    predictor = Predictor(weights, amp="fp32", tta=tta, batch_size=2)
    answers = predictor.predict(paths, top_k=3)
    for path, answer in zip(paths, answers, strict=True):
        expected = plain_loop(weights, path, tta)
        found = dict(zip(answer.classes, answer.probabilities, strict=True))
        ours = [found[name] for name in ("ant", "bee", "cat")]
        np.testing.assert_allclose(ours, expected, rtol=2e-5)


@pytest.mark.parametrize("tta", TTA)
def test_eval_scores_the_mean(weights: Path, image_folder: Path, tmp_path: Path, tta: str) -> None:
    config = eval_config(image_folder, weights, tmp_path / "out", tta=tta)
    (evaluation,) = evaluate(config).evaluations.values()
    assert evaluation is not None
    losses = []
    for label, path in zip(evaluation.targets.tolist(), evaluation.paths, strict=True):
        shares = plain_loop(weights, evaluation.dataset.root / path, tta)
        losses.append(-np.log(shares[label]))
    assert evaluation.metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    log = next((tmp_path / "out").glob("*.log")).read_text()
    assert f"the mean of {VIEWS[tta]} views of each image ({tta})" in log
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["tta"] == tta


@pytest.mark.parametrize("tta", ["none", *TTA])
@pytest.mark.parametrize("interpolation", ["opencv_bilinear", "pillow_bicubic"])
def test_views_are_the_crops_flips_and_turns_of_the_image(
    image_folder: Path, tta: str, interpolation: str
) -> None:
    path = image_folder / "val" / "bee" / "001.png"
    preprocessing = Preprocessing((SIDE, SIDE), "20,20", interpolation=interpolation, tta=tta)
    pixels = np.empty((*preprocessing.pixels_size, 3), np.uint8)
    preprocessing.prepare(path.read_bytes(), pixels)
    found = preprocessing.views(torch.from_numpy(pixels)[None])
    expected = plain_views(path, tta, interpolation)
    assert len(found) == len(expected) == VIEWS[tta]
    assert len({view.numpy().tobytes() for view in found}) == VIEWS[tta]
    seen = sorted(view.tobytes() for view in map(np.ascontiguousarray, expected))
    assert sorted(view[0].numpy().tobytes() for view in found) == seen
    central = preprocessing.central(torch.from_numpy(pixels)[None])
    np.testing.assert_array_equal(central[0].numpy(), plain_views(path, "flip", interpolation)[0])
    np.testing.assert_array_equal(found[0].numpy(), central.numpy())


def test_corners_of_images_of_any_shape(image_folder: Path) -> None:
    path = image_folder / "val" / "bee" / "001.png"  # 48 x 40
    preprocessing = Preprocessing((SIDE, 12), "short:20", tta="ten_crop")
    pixels = np.empty((5 * SIDE, 12, 3), np.uint8)
    preprocessing.prepare(path.read_bytes(), pixels)
    whole = EvalTransform(20, 24, parse_eval_resize("short:20"))(read_image(path))
    places = [(2, 6), (0, 0), (0, 12), (4, 0), (4, 12)]
    for crop, (top, left) in zip(pixels.reshape(5, SIDE, 12, 3), places, strict=True):
        np.testing.assert_array_equal(crop, whole[top : top + SIDE, left : left + 12])


def test_the_mean_is_exact_and_never_infinite() -> None:
    logits = torch.tensor([[[0.0, 800.0, -800.0]], [[1.0, -900.0, 900.0]]])
    found = SingleLabel().mean_of_views(logits)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.softmax(1), torch.tensor([[0.0, 0.5, 0.5]]))
    # By hand: (1/2 + 1/5) / 2, ...
    two = torch.tensor([[[1.0, 1.0]], [[1.0, 4.0]]]).log()
    torch.testing.assert_close(
        SingleLabel().mean_of_views(two).softmax(1), torch.tensor([[0.35, 0.65]])
    )
    # Logits of probabilities: a second softmax of them gives the same.
    assert SingleLabel().mean_of_views(two).exp().sum() == pytest.approx(1.0)


def test_the_mean_over_views_of_several_labels() -> None:
    logits = torch.tensor([[[0.0, 800.0, -3.0]], [[2.0, -800.0, -3.0]]])
    found = MultiLabel().mean_of_views(logits)
    expected = torch.tensor([[(0.5 + 0.880797) / 2, 0.5, 0.0474259]])
    torch.testing.assert_close(found.sigmoid(), expected)
    certain = torch.tensor([[[-900.0, 900.0]], [[-900.0, 900.0]]])
    torch.testing.assert_close(MultiLabel().mean_of_views(certain), certain[0])


def test_views_do_not_share_memory_with_the_images() -> None:
    images = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3)
    for tta in ("flip", "dihedral"):
        for view in views_of(images, tta):
            assert view.is_contiguous() and view.shape == images.shape


@pytest.mark.parametrize("tta", TTA)
def test_calibration_stores_its_views_and_everything_uses_them(
    weights: Path, image_folder: Path, tmp_path: Path, tta: str
) -> None:
    output = tmp_path / "calibrated.safetensors"
    flags: dict[str, Any] = {"workers": 1, "amp": "fp32", "tta": tta, "output": str(output)}
    result = calibrate(
        CalibrateConfig(data_dir=str(image_folder), pretrained=str(weights), **flags)
    )
    stored = read_weights(output).info
    assert stored is not None and stored.preprocessing.tta == tta
    path = image_folder / "val" / "ant" / "000.png"
    (answer,) = Predictor(output, amp="fp32").predict([path], top_k=3)
    logits = np.log(plain_loop(weights, path, tta))[None].astype(np.float32)
    expected = probabilities(logits, result.calibration.temperature)[0]
    np.testing.assert_allclose(answer.probabilities, np.sort(expected)[::-1], rtol=1e-4)
    # eval takes them as well, and other views are refused.
    evaluated = [
        next(iter(evaluate(config).evaluations.values()))
        for config in (
            eval_config(image_folder, output, tmp_path / "a"),
            eval_config(image_folder, weights, tmp_path / "b", tta=tta),
        )
    ]
    assert evaluated[0] and evaluated[1] and evaluated[0].metrics == evaluated[1].metrics
    message = f"`tta` is none, but .* was calibrated with `tta` {tta}; omit `tta`, or take the"
    with pytest.raises(UsageError, match=message):
        Predictor(output, tta="none")
    assert Predictor(output, tta=tta).classifier.preprocessing.tta == tta


def test_a_new_head_has_features_of_one_view(
    weights: Path, image_folder: Path, tmp_path: Path
) -> None:
    calibrated = tmp_path / "calibrated.safetensors"
    flags: dict[str, Any] = {"workers": 1, "tta": "ten_crop", "output": str(calibrated)}
    calibrate(CalibrateConfig(data_dir=str(image_folder), pretrained=str(weights), **flags))
    found = []
    for source in (weights, calibrated):
        output = tmp_path / f"head_of_{source.stem}.safetensors"
        command = ["probe", "--data_dir", str(image_folder), "--pretrained", str(source)]
        command += ["--output", str(output), "--method", "class_mean", "--workers", "1"]
        assert cli.main([*command, "--amp", "fp32"]) == 0
        head = read_weights(output)
        assert head.info is not None and head.info.preprocessing.tta == "none"
        found.append(head.state_dict["classifier.weight"])
    assert torch.equal(found[0], found[1])


def test_weights_without_views_are_written_as_before(weights: Path) -> None:
    content = Preprocessing((16, 16), "20,20").to_json()
    assert "tta" not in content and Preprocessing.from_json(content).tta == "none"
    assert b"tta" not in weights.read_bytes()
    told = Preprocessing((16, 16), "20,20", tta="flip")
    assert Preprocessing.from_json(told.to_json()) == told


def test_maps_show_the_central_crop(weights: Path, image_folder: Path, tmp_path: Path) -> None:
    path = image_folder / "val" / "ant" / "000.png"
    common = ["--pretrained", str(weights), "--amp", "fp32", "--top_k", "1"]
    for tta in ("none", "ten_crop"):
        flags = [*common, "--tta", tta, "--cam", str(tmp_path / tta)]
        assert cli.main(["predict", str(path), *flags]) == 0
    shapes = [
        read_image(next((tmp_path / tta).glob("*.png"))).shape for tta in ("none", "ten_crop")
    ]
    assert shapes[0] == shapes[1]


def test_what_cannot_be_is_one_line(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        InputError, match="`tta` dihedral needs square images, but `image_size` is 16,24"
    ):
        Predictor(weights, tta="dihedral", image_size=(16, 24), eval_resize="32")
    with pytest.raises(InputError, match=r"`tta` must be one of none, flip, .*, got .mirror."):
        Predictor(weights, tta="mirror")
    assert cli.main(["predict", "x.png", "--pretrained", str(weights), "--tta", "mirror"]) == 2
    assert "--tta must be one of none, flip, dihedral, ten_crop, got mirror" in (
        capsys.readouterr().err
    )
