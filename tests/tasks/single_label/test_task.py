"""The columns of predictions.csv of images that each have one class."""

import math

import torch

from densenet121.tasks.single_label.task import SingleLabel


def test_predictions_have_all_digits_so_that_sure_answers_keep_their_order() -> None:
    task, targets = SingleLabel(), torch.tensor([0, 0, 1])
    logits = torch.tensor([[15.0, 0.0], [15.5, 0.0], [0.0, 0.25]])
    columns = task.csv_columns(task.score(logits, targets), targets, ["ant", "bee"])
    texts = [str(cell) for cell in columns["probability"]]
    assert float(texts[0]) < float(texts[1]) < 1
    for text, margin in zip(texts, (15.0, 15.5, 0.25), strict=True):
        assert math.isclose(float(text), 1 / (1 + math.exp(-margin)), rel_tol=1e-6)
