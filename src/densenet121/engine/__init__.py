"""Training and evaluation, from settings to results."""
