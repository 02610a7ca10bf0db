"""Inference in 8-bit integers: calibration, the tensors, the network."""

from densenet121.network.int8.checks import VERSION, check_tensors
from densenet121.network.int8.network import Int8Network
from densenet121.network.int8.scheme import quantise_network
from densenet121.network.int8.statistics import measure

__all__ = ["VERSION", "Int8Network", "check_tensors", "measure", "quantise_network"]
