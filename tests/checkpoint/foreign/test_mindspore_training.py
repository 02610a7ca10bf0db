"""What MindSpore's training checkpoints have beside the network."""

from pathlib import Path

import pytest
import torch

from densenet121.checkpoint.foreign.identify import identify
from densenet121.checkpoint.foreign.names import to_mindspore
from densenet121.network import build
from densenet121.utils.errors import InputError


@pytest.mark.parametrize("model_zoo", [True, False])
@pytest.mark.parametrize("words", [("moment1", "moment2"), ("accum",), ("ema",)])
def test_a_checkpoint_of_another_optimiser_gives_the_weights(
    words: tuple[str, ...], model_zoo: bool
) -> None:
    """MindSpore's callback saves what Adam, SGD or an average has of each parameter, too."""
    tensors = {
        to_mindspore(name, model_zoo=model_zoo): tensor
        for name, tensor in build("densenet40", num_classes=3).state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    wrapped = {f"network.{name}": tensor for name, tensor in tensors.items()}
    for word in words:
        wrapped |= {
            f"{word}.{name}": torch.zeros_like(tensor)
            for name, tensor in tensors.items()
            if "moving" not in name
        }
    numbers = ("beta1_power", "beta2_power", "mu_schedule", "updates")  # the last two of mindcv
    wrapped |= {name: torch.tensor(0.9) for name in numbers}
    found = identify(wrapped, Path("w.ckpt"), {}, None)
    plain = identify(tensors, Path("w.ckpt"), {}, None)
    assert found.state_dict.keys() == plain.state_dict.keys()
    for name, tensor in plain.state_dict.items():
        assert torch.equal(found.state_dict[name], tensor)
    said = "an optimiser's or an average's values of each parameter are left out: "
    assert found.notes == (said + ", ".join(words), *plain.notes)
    assert not found.momentum


def test_a_network_under_two_wrappers_is_still_refused() -> None:
    tensors = {
        "features.conv0.weight": torch.ones(1, 3, 1, 1),
        "features.norm0.gamma": torch.ones(1),
    }
    twice = tensors | {f"network.{name}": tensor for name, tensor in tensors.items()}
    with pytest.raises(InputError, match="both map to"):
        identify(twice, Path("w.ckpt"), {}, None)
