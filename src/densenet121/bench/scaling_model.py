"""What a training step should take on several cores, from a few measurements of the machine.

A step is computation that the cores share, or traffic that the memory of the machine must carry if
that takes longer; then the update of the weights, which every process does for itself; then the
exchange of gradients, with which nothing overlaps because all cores compute. Threads that wait for
each other, and memory of another socket, are not in it.
"""

from dataclasses import dataclass

from torch import nn

from densenet121.network import DenseNet

# An update reads weight, gradient and momentum, and writes weight and momentum, in float32.
UPDATE_BYTES = 20


@dataclass(frozen=True)
class Machine:
    """Measurements from which steps are predicted.

    Attributes:
        cores: cores in use.
        solo: seconds of a step of one core's share of the images, on one core while the others
            rest, with the update.
        update: seconds of the update alone, on one core while the others rest.
        bandwidth: bytes a second that all cores together read and write.
    """

    cores: int
    solo: float
    update: float
    bandwidth: float

    def expected_step(
        self, processes: int, *, traffic: float, parameters: int, exchange: float
    ) -> float:
        """Seconds of a step of all images by this number of processes, which share the cores.

        Args:
            processes: number of processes.
            traffic: bytes that the images of a step move, see ``bytes_an_image``.
            parameters: number of weights.
            exchange: seconds of the exchange alone; 0 for one process.
        """
        work = max(self.solo - self.update, traffic / self.bandwidth)
        moved = processes * UPDATE_BYTES * parameters / self.bandwidth
        update = max(self.update * processes / self.cores, moved)
        return work + update + exchange


def bytes_an_image(model: DenseNet, size: tuple[int, int], item_bytes: int) -> int:
    """Bytes that an image moves in a training step by our kernels, without any cache.

    Of a layer with K input channels, B of its bottleneck and G new ones, for each pixel: the
    forward pass reads K, writes and reads B, writes G; the backward pass reads K twice, reads and
    writes the gradient of K, reads and writes B four times in all, and G three times.
    """
    growth, conv0 = model.growth_rate, model.features.conv0
    assert isinstance(conv0, nn.Conv2d)
    channels = conv0.out_channels
    height, width = size
    moved = 0
    if model.stem == "imagenet":
        height, width = -(-height // 2), -(-width // 2)
        halved = (-(-height // 2)) * (-(-width // 2))
        # conv0 writes, the pooling reads and writes a quarter; twice as much in the backward pass.
        moved = 3 * channels * (2 * height * width + halved)
        height, width = -(-height // 2), -(-width // 2)
    bottleneck = 4 * growth
    for number, layers in enumerate(model.block_config, start=1):
        pixels = height * width
        for _ in range(layers):
            moved += pixels * (5 * channels + 6 * bottleneck + 4 * growth)
            channels += growth
        if number < len(model.block_config):
            height, width = height // 2, width // 2
            moved += 4 * pixels * channels + height * width * (channels // 2)
            channels //= 2
    return moved * item_bytes
