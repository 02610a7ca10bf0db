"""A step on torch's meta device: it has shapes and no values, so whoever would wait for one fails.

It shows that the host never reads a value from the device, and that no tensor is left on the CPU.
It shows no number, no speed and no race.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from densenet121.datasets.preprocessing import Preprocessing
from densenet121.engine.distillation import Distillation
from densenet121.engine.state import LossMeter
from densenet121.engine.step import TrainingBatch, train_step
from densenet121.losses import Asymmetry
from densenet121.losses.mixing import Mix
from densenet121.network import DenseNet, Variant, synchronise_norms
from densenet121.optimizers import AveragedWeights, get_param_groups, make_optimizer
from densenet121.runtime import Runtime, make_runtime
from densenet121.tasks import MultiLabel, SingleLabel

META = torch.device("meta")
RUNTIME = Runtime(make_runtime(device="cpu").process, META, torch.float32, 4, 0)


def small(variant: Variant = "paper") -> DenseNet:
    model = DenseNet(
        growth_rate=4, block_config=(2, 2), num_init_features=8, num_classes=5, variant=variant
    )
    return model.to(META, memory_format=torch.channels_last).train()  # type: ignore[call-overload,no-any-return]


def step_of(
    model: nn.Module,
    loss: Callable[..., Tensor],
    *,
    clip_grad: float | None = None,
    mix: Mix | None = None,
    distillation: Distillation | None = None,
) -> Tensor:
    optimizer: Optimizer = make_optimizer(
        "sgd", get_param_groups(model, 1e-4), lr=0.1, momentum=0.9
    )

    def batches() -> Iterator[TrainingBatch]:
        for _ in range(2):
            images = torch.empty(4, 3, 32, 32, device=META)
            labels = torch.zeros(4, dtype=torch.int64, device=META)
            if loss in (several.loss, asymmetric.loss):
                labels = torch.zeros(4, 5, device=META)
            images = mix.images(images) if mix else images
            teacher = distillation.logits(images, RUNTIME) if distillation else None
            yield TrainingBatch(images, labels, 0.5, teacher, mix)

    return train_step(
        model,
        optimizer,
        torch.amp.GradScaler("cpu", enabled=False),
        batches(),
        loss,
        micro_batches=2,
        lr=0.1,
        precision=torch.float32,
        clip_grad=clip_grad,
    )


several = MultiLabel()
asymmetric = MultiLabel(asymmetry=Asymmetry())
LOSSES = {
    "cross-entropy": SingleLabel().loss,
    "smoothed": SingleLabel(0.1).loss,
    "focal": SingleLabel(0.0, 2.0).loss,
    "weighted": SingleLabel(0.0, None, (1.0, 2.0, 1.0, 0.5, 0.5)).loss,
    "several labels": several.loss,
    "asymmetric": asymmetric.loss,
}


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_step_never_waits_for_the_device(name: str) -> None:
    model = small()
    losses = LossMeter(META)
    losses.add(step_of(model, LOSSES[name]))
    assert all(p.grad is not None for p in model.parameters())


def test_clipping_and_the_averaged_weights_never_wait_for_the_device() -> None:
    model = small("model_zoo")
    average = AveragedWeights(model, 0.99)
    step_of(model, LOSSES["smoothed"], clip_grad=1.0)
    average.update(model, 0)


@pytest.mark.parametrize("mix", [Mix(0.3), Mix(0.75, (0, 16, 0, 16))])
def test_mixed_images_and_a_teacher_never_wait_for_the_device(mix: Mix) -> None:
    preprocessing = Preprocessing((32, 32), "36,36")
    other = Preprocessing((32, 32), "36,36", mean=(1.0, 2.0, 3.0))
    teacher = Distillation(small().eval(), other, preprocessing, SingleLabel(), 0.5, 2.0)
    step_of(small(), teacher.loss, mix=mix, distillation=teacher)


def test_synchronised_norms_never_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one wait in each norm, the host would wait 121 times in a forward pass."""
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    exchanged: list[Tensor] = []
    monkeypatch.setattr(dist, "all_reduce", exchanged.append)
    model = small()
    synchronise_norms(model)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    step_of(model, LOSSES["cross-entropy"])
    assert len(exchanged) == 2 * 2 * norms  # forward and backward of two batches
    assert {tensor.device for tensor in exchanged} == {META}
