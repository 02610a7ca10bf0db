"""Inference in 8-bit integers: calibration, the tensors, the network."""
