"""What TensorBoard, W&B and MLflow have of a run, as JSON: [kind of point, name, step, value].

tensorboard FOLDER   the event files in a folder
wandb FOLDER         the offline runs in a folder, all that have one id
mlflow FILE          the runs in a database
"""

import json
import sys
from pathlib import Path


def records_of(data):
    """The records of a .wandb file: a header of 7 bytes, then LevelDB's log format."""
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:  # the rest of a block is too small for another header
            place += left
            continue
        size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


what, place = sys.argv[1:]
points, images, more = [], [], {}
if what == "tensorboard":
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(place, size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = found.Tags()
    points = [[tag, e.step, e.value] for tag in tags["scalars"] for e in found.Scalars(tag)]
    images = [[tag, e.step, e.width, e.height] for tag in tags["images"] for e in found.Images(tag)]
    more["texts"] = tags["tensors"]
elif what == "wandb":
    from wandb.proto import wandb_internal_pb2

    ids = set()
    for file in sorted(Path(place).glob("wandb/offline-run-*/run-*.wandb")):
        media = {}
        for data in records_of(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.run.run_id:
                ids.add(record.run.run_id)
                more["config"] = {item.key: item.value_json for item in record.run.config.update}
            step = record.history.step.num
            for item in record.history.item:
                name, value = item.key or "/".join(item.nested_key), json.loads(item.value_json)
                if len(item.nested_key) > 1:
                    media.setdefault((item.nested_key[0], step), {})[item.nested_key[1]] = value
                elif not name.startswith("_"):
                    points.append([name, step, value])
        for (name, step), found in media.items():
            assert found["_type"] == "image-file"
            stored = file.parent / "files" / found["path"]
            assert stored.read_bytes()[:4] == b"\x89PNG"
            images.append([name, step, found["width"], found["height"]])
    more["ids"] = sorted(ids)
else:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}")
    experiment = client.get_experiment_by_name("densenet121")
    runs = client.search_runs([experiment.experiment_id])
    more["runs"] = [[run.info.run_name, run.info.status] for run in runs]
    more["params"] = runs[0].data.params
    for run in runs:
        for entry in client.list_artifacts(run.info.run_id, "images"):
            step, _, name = Path(entry.path).stem.partition("_")
            images.append([name, int(step), entry.file_size])
        for name in run.data.metrics:
            points += [
                [name, point.step, point.value]
                for point in client.get_metric_history(run.info.run_id, name)
            ]
print(json.dumps({"points": points, "images": images, **more}))
