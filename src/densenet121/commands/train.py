"""The ``train`` command: a run, then its report."""

from densenet121.commands import DONE, FAILED, STOPPED
from densenet121.config import TrainConfig
from densenet121.engine.train import train
from densenet121.report import write_report
from densenet121.utils.signals import StopRequest


def run(config: TrainConfig) -> int:
    """Train and write the report; 1 if images had to be skipped."""
    # After a signal the run saves and frees its memory. Another signal must not interrupt that with
    # a traceback.
    with StopRequest():
        result = train(config)
        if result.stopped:
            return STOPPED
        if result.rank == 0:
            write_report(result.folder)
    return FAILED if result.bad_images or result.bad_val_images else DONE
