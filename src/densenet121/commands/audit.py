"""The ``audit`` command."""

from densenet121.audit.audit import find, write
from densenet121.audit.output import as_json, table
from densenet121.commands import DONE, FAILED
from densenet121.config import AuditConfig


def run(config: AuditConfig) -> int:
    """Print what is wrong with a dataset; 1 if there are faults."""
    found = find(config)
    try:
        write(found, config)
    finally:  # where a file cannot be written, the work is not lost
        print(as_json(found) if config.json else table(found))  # noqa: T201 (the command's output)
    return FAILED if found.has_faults else DONE
