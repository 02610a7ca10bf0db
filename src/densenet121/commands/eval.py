"""The ``eval`` command."""

from densenet121.commands import DONE, FAILED, STOPPED
from densenet121.config import EvalConfig
from densenet121.engine.evaluate import evaluate
from densenet121.utils.signals import StopRequest


def run(config: EvalConfig) -> int:
    """Evaluate every weights file; 1 if a weights file or an image could not be used."""
    with StopRequest():
        evaluated = evaluate(config)
    if evaluated.stopped:
        return STOPPED
    return DONE if evaluated.complete else FAILED
