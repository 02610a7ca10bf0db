"""Files that hold weights or the whole state of a run."""
