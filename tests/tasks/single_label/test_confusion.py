"""The figure of the confusion matrix."""

import numpy as np

from densenet121.tasks.single_label.plots import _confusion_figure
from densenet121.tasks.single_label.predictions import Row
from densenet121.tasks.single_label.scores import compare


def test_a_figure_of_blocks_says_which_errors_it_cannot_show() -> None:
    """Neighbours of 300 classes are taken for each other, and no cell is orange."""
    names = [f"{number:03d}" for number in range(300)]
    rows = [Row("", names[k], names[k + 1 - k % 2], 0.9, 1) for k in range(300)]
    figure = _confusion_figure(compare(rows, names))
    title = " ".join(figure.axes[0].get_title().split())
    wrong = np.asarray(figure.axes[0].get_images()[0].get_array())
    assert not (wrong - np.diag(np.diag(wrong))).any()
    assert "on the diagonal the mean of the correct ones, without the errors among its 2" in title
    small = _confusion_figure(compare(rows[:100], names[:100]))
    assert "diagonal" not in small.axes[0].get_title()
