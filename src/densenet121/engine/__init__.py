"""Runs: training and evaluation from settings to results."""
