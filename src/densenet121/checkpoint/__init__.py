"""Files with weights or the whole state of a run."""
