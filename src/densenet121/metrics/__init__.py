"""Metrics of probabilities against labels, with intervals: pure functions of numpy arrays.

``truth`` is 1 (positive), 0 (negative) or nan (unknown). What is not defined, such as the AUROC of
a label without positives, is None, never 0. Nothing here knows runs, tasks or settings.
"""
