"""Two classes as one label: the same probability, and what cannot be one label is refused."""

from pathlib import Path

import pytest
import torch

from densenet121.checkpoint.convert import convert
from densenet121.checkpoint.known import Known
from densenet121.checkpoint.load import read_weights
from densenet121.checkpoint.pretrained import load_pretrained
from densenet121.cli import main
from densenet121.tasks.single_label.calibration import Calibration
from densenet121.utils.errors import UsageError

from helpers.weights import write_weights


@pytest.mark.parametrize("positive", ["ill", "normal"])
def test_the_sigmoid_of_the_label_is_the_softmax_of_its_class(
    positive: str, tmp_path: Path
) -> None:
    two = write_weights(tmp_path / "two.safetensors", seed=3, class_names=("ill", "normal"))
    one = tmp_path / "one.safetensors"
    done = convert(two, one, "native", positive_class=positive)
    assert done.info.class_names == (positive,) and done.info.task == "multilabel"
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        models = (load_pretrained(file).model.double() for file in (two, one))
        logits, logit = (model(images.double()) for model in models)
    shares = logits.softmax(1)[:, ["ill", "normal"].index(positive)]
    torch.testing.assert_close(logit.sigmoid()[:, 0], shares, rtol=0, atol=1e-7)
    kept = read_weights(two).state_dict
    for name, tensor in read_weights(one).state_dict.items():
        assert name.startswith("classifier.") or torch.equal(tensor, kept[name])
    assert read_weights(two).info.class_names == ("ill", "normal")  # type: ignore[union-attr]


def test_a_calibration_of_the_classes_is_left_out_and_said(tmp_path: Path) -> None:
    calibration = Calibration(2.0, (), None, {"fingerprint": "x"})
    two = write_weights(tmp_path / "two.safetensors", 1, calibration, class_names=("a", "b"))
    done = convert(two, tmp_path / "one.safetensors", "native", positive_class="b")
    assert "the calibration is left out, because it is of other classes" in done.notes
    assert "b is the only label, and a its absence" in done.notes[1]
    assert read_weights(tmp_path / "one.safetensors").calibration is None


def test_names_can_be_given_where_the_file_has_none(tmp_path: Path) -> None:
    two = write_weights(tmp_path / "two.safetensors", class_names=("a", "b"))
    (tmp_path / "names.txt").write_text("normal\nill\n")
    known, one = Known(class_names=tmp_path / "names.txt"), tmp_path / "one.safetensors"
    assert convert(two, one, "native", known=known, positive_class="ill").info.class_names == (
        "ill",
    )


@pytest.mark.parametrize(
    ("names", "positive", "to", "problem"),
    [
        (("a", "b", "c"), "a", "native", "of two, but these weights have 3 outputs of the task si"),
        (("a", "b"), "ill", "native", "no class is called ill .*its classes are a, b"),
        (("a", "b"), "a", "timm", "`positive_class` is for `to` native, not for timm"),
    ],
)
def test_what_is_not_one_label_is_refused(
    names: tuple[str, ...], positive: str, to: str, problem: str, tmp_path: Path
) -> None:
    source = write_weights(tmp_path / "w.safetensors", class_names=names)
    target = tmp_path / "one.safetensors"
    with pytest.raises(UsageError, match=problem):
        convert(source, target, to, positive_class=positive)  # type: ignore[arg-type]
    assert not target.exists()


def test_weights_without_names_need_them(tmp_path: Path) -> None:
    from densenet121.network import densenet40

    torch.save(densenet40(num_classes=2).state_dict(), tmp_path / "two.pth")
    with pytest.raises(UsageError, match=r"does not record which output is ill .*`class_names`"):
        convert(
            tmp_path / "two.pth",
            tmp_path / "one.safetensors",
            "native",
            net="densenet40",
            positive_class="ill",
        )


def test_a_class_with_a_line_break_does_not_break_the_note(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = write_weights(tmp_path / "two.safetensors", class_names=("ill\nvery", "normal"))
    flags = ["--to", "native", "--positive_class", "ill\nvery"]
    assert main(["convert", str(two), str(tmp_path / "one.safetensors"), *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and r"note: ill\nvery is the only label" in lines[1]
