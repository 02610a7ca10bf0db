"""Folders in the layout of ``save_to_disk`` of datasets 5.2."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_arrow(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    features: Mapping[str, Any] | None = None,
    files: int = 1,
    batch: int = 3,
) -> Path:
    """Rows in some files, in batches of a few."""
    import pyarrow

    folder.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(list(rows))
    names = [f"data-{number:05d}-of-{files:05d}.arrow" for number in range(files)]
    for number, name in enumerate(names):
        first, last = (len(rows) * n // files for n in (number, number + 1))
        with (
            pyarrow.OSFile(str(folder / name), "wb") as out,
            pyarrow.ipc.new_stream(out, table.schema) as stream,
        ):
            stream.write_table(table.slice(first, last - first), max_chunksize=batch)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features or {}}))
    return folder
