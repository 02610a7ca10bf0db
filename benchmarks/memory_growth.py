"""Peak memory of a training step as the network and the batch grow: a table and a figure.

Usage, in the environment of `make bench`: ``python benchmarks/memory_growth.py [OUTPUT.png]``;
the figure is docs/images/memory.png unless another is named.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from densenet121.bench.compute import compare
from densenet121.config import BenchConfig

# Layers of the dense blocks, each a 1x1 and a 3x3 convolution.
LAYERS = {"densenet121": 58, "densenet169": 82, "densenet201": 98, "densenet264": 130}
BATCHES = (8, 16, 32, 64)
IMAGE = Path(__file__).resolve().parents[1] / "docs" / "images" / "memory.png"
TORCHVISION = ("densenet121", "densenet169", "densenet201")


def megabytes(net: str, batch_size: int) -> dict[str, float]:
    """Of each side's training steps at 224 x 224, above the process before."""
    config = BenchConfig(
        what="train",
        against="torchvision" if net in TORCHVISION else "",
        net=net,  # type: ignore[arg-type]
        per_batch_size=batch_size,
        warmup=1,
        rounds=1,
    )
    return {side.name: side.megabytes for side in compare(config).sides}


def main() -> None:
    """Measure, print a table in Markdown, draw."""
    output = Path(sys.argv[1] if len(sys.argv) > 1 else IMAGE)
    depth = {net: megabytes(net, 16) for net in LAYERS}
    batch = {size: megabytes("densenet121", size) for size in BATCHES}
    print("| network (layers), batch | ours | torchvision |\n|---|---|---|")
    rows = [(f"{net} ({LAYERS[net]}), 16", found) for net, found in depth.items()]
    rows += [(f"densenet121 (58), {size}", found) for size, found in batch.items()]
    for name, found in rows:
        cells = [f"{found[s]:.0f} MB" if s in found else "-" for s in ("ours", "torchvision")]
        print(f"| {name} | {' | '.join(cells)} |")
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for side, marker in (("ours", "o"), ("torchvision", "s")):
        nets = [net for net in depth if side in depth[net]]
        left.plot(
            [LAYERS[net] for net in nets],
            [depth[net][side] for net in nets],
            marker=marker,
            label=side,
        )
        right.plot(BATCHES, [batch[size][side] for size in BATCHES], marker=marker, label=side)
    left.set(title="batch 16, DenseNet-121 to -264", xlabel="layers", ylabel="peak memory (MB)")
    right.set(title="DenseNet-121", xlabel="images a step", xticks=BATCHES)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(output, dpi=130)


if __name__ == "__main__":
    main()
