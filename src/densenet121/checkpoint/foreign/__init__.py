"""Weights of other programs, one module per format."""
