"""The ``predict`` command: classify files, folders or standard input."""

import json
import os
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from densenet121.commands import DONE, FAILED, print_notes
from densenet121.config import PredictConfig, absolute, weights_choices
from densenet121.datasets.decoding import EXTENSIONS, MAX_BYTES, is_image
from densenet121.datasets.sources.hidden_folders import is_hidden_folder
from densenet121.datasets.sources.text import text_of
from densenet121.engine.images import check_not_among_classes
from densenet121.inference.maps import check_maps, maps_of, write_map
from densenet121.inference.predictor import ImageInput, Predictor
from densenet121.network import constant_network
from densenet121.runs.layout import make_folder
from densenet121.tasks import Answer, AnswerOptions, Task
from densenet121.utils.csv_lines import csv_writer
from densenet121.utils.errors import InputError, UsageError, visible
from densenet121.utils.files import real_path
from densenet121.utils.progress import progress_bar
from densenet121.utils.strays import broken_link

_NO_LIST = "no image of a known format, and no list of paths, one a line (find without -print0)"

_OF_SCANNERS = frozenset({".ima", ".dc3", ".dic"})  # DICOM under other names than .dcm


@dataclass(frozen=True)
class Source:
    """An image and its name in the output."""

    name: str
    image: ImageInput


def predict(config: PredictConfig, task: Task | None = None) -> int:
    """Classify every input and print; returns the number of images that could not be read.

    Args:
        config: the settings.
        task: the caller's own task; None uses the one that the weights name.

    Raises:
        UsageError: a setting cannot be used.
        InputError: weights cannot be used, or an image, unless bad images are skipped.
    """
    predictor = Predictor(
        absolute(config.pretrained),
        **weights_choices(config),
        device=config.device,
        amp=config.amp,
        batch_size=config.per_batch_size,
        workers=config.num_workers,
        task=task,
    )
    options = AnswerOptions(config.top_k, config.coverage, config.abstain_below)
    predictor.check_options(options)
    cam = absolute(config.cam) if config.cam is not None else None
    if cam is not None:
        check_maps(predictor, config.cam_layer)
        _check_apart(cam, predictor.classifier.class_names)
        _check_outside(cam, config.inputs)
    sources = find(config.inputs, note=lambda text: print_notes([f"note: {text}"]))
    if cam is not None:
        make_folder(cam, cam.parent)
    print_notes(predictor.classifier.remarks)
    columns = predictor.classifier.task.answer_columns
    write = writer(config.format, sys.stdout, max(len(s.name) for s in sources), columns)
    steps = -(-len(sources) // predictor.batch_size)
    num_bad = 0
    fixed = constant_network(predictor.classifier.model)
    with fixed, progress_bar("predict", steps, unit="batch") as advance:
        for batch, logits in predictor.batches(
            [source.image for source in sources],
            skip_bad=config.on_bad_image == "skip",
            advance=advance,
        ):
            for index, reason in batch.bad:
                # The reason names a file, but not an image of standard input.
                name = "-: " if isinstance(sources[index].image, bytes) else ""
                print(f"densenet121: {name}{reason}", file=sys.stderr)  # noqa: T201
            num_bad += len(batch.bad)
            answers = predictor.answers(logits, options)
            for index, answer in zip(batch.indices, answers, strict=True):
                write(sources[index].name, answer)
            if cam is not None and len(batch.indices):
                pngs = maps_of(predictor, batch.images, logits, config.cam_layer)
                for index, png in zip(batch.indices, pngs, strict=True):
                    write_map(cam, int(index), sources[index].name, png)
    return num_bad


def _check_apart(cam: Path, class_names: Sequence[str]) -> None:
    """Refuse a folder for maps among the class folders of the weights' classes, or within one."""
    for root in cam.parents:
        folders = [name for name in class_names if os.path.isdir(root / name)]  # noqa: PTH112
        if len(folders) > 1:
            check_not_among_classes(cam, "cam", root)


def _check_outside(cam: Path, inputs: Sequence[str]) -> None:
    """Refuse a folder for maps where a folder of the inputs has its images, or within one."""
    place = real_path(cam)
    for name in inputs:
        folder = real_path(absolute(name))
        if name == "-" or not folder.is_dir() or not place.is_relative_to(folder):
            continue
        below = place.parts[len(folder.parts) :]
        if not any(part.startswith(".") for part in below):  # of which no image is read
            raise UsageError(
                f"`cam` {cam} is in {name}, whose images are classified: the next time the maps "
                "would be among them; pass another folder for it"
            )


def find(
    inputs: Sequence[str],
    stdin: IO[bytes] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> list[Source]:
    """The images of the inputs, in order; those of a folder in byte order of their paths.

    Args:
        inputs: files, folders, or "-".
        stdin: what "-" reads.
        note: called with what is left out of a folder though it seems to be an image.

    Raises:
        InputError: an input does not exist, or none has an image.
    """
    found: list[Source] = []
    nameless: list[str] = []
    for name in inputs:
        if name == "-":
            found += _from_stream(stdin or sys.stdin.buffer)
            continue
        path = absolute(name)
        if path.is_dir():
            images, others = _below(str(name))
            found += [Source(inside, inside) for inside in images]
            nameless += others
        elif path.exists():
            found.append(Source(name, path))
        else:
            link = broken_link(path)
            nothing = f"is {link}" if link else "there is no such file or folder"
            raise InputError(f"{name}: {nothing}")
    left_out = (
        "files that begin like an image but have no extension of one are left out "
        f"({len(nameless)}, such as {nameless[0]}); pass them as files, or as a list on standard "
        "input"
        if nameless
        else ""
    )
    if not found:
        more = f"; {left_out}" if left_out else ""
        extensions = ", ".join(sorted(EXTENSIONS))
        raise InputError(f"no images ({extensions}) in {', '.join(inputs)}{more}")
    if left_out:
        note(left_out)
    return found


def _from_stream(stdin: IO[bytes]) -> list[Source]:
    data = stdin.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"standard input: has more than {MAX_BYTES} bytes")
    if is_image(data):
        return [Source("-", data)]
    text = text_of(data, "standard input", _NO_LIST).encode("utf-8", "surrogateescape")
    lines = [os.fsdecode(line.rstrip(b"\r")) for line in text.split(b"\n")]
    return [Source(line, absolute(line)) for line in lines if line]


def _below(folder: str) -> tuple[list[str], list[str]]:
    """Paths of the images below a folder, and of those that only begin like one.

    The latter have no extension, the number with which a DICOM identifier ends, or an extension
    that scanners give DICOM. Hidden files and
    folders, and folders of systems, are skipped.
    """
    paths: list[str] = []
    nameless: list[str] = []

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})")

    for here, folders, files in os.walk(os.path.expanduser(folder), onerror=refuse):  # noqa: PTH111
        folders[:] = [name for name in folders if not is_hidden_folder(name)]
        for name in files:
            extension = os.path.splitext(name)[1].lower()  # noqa: PTH122 (hot loop)
            path = os.path.join(here, name)  # noqa: PTH118
            if name[0] == ".":
                continue
            if extension in EXTENSIONS:
                paths.append(path)
            elif name != "DICOMDIR" and (  # the index of a study
                extension in _OF_SCANNERS or not extension.strip(".0123456789")
            ):
                nameless += [path] if _begins_like_an_image(path) else []
    return sorted(paths, key=os.fsencode), sorted(nameless, key=os.fsencode)


def _begins_like_an_image(path: str) -> bool:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (opening a pipe could block)
            return False
        with open(path, "rb") as file:  # noqa: PTH123
            return is_image(file.read(132))
    except OSError:
        return False


def writer(
    kind: str, out: IO[str], width: int, columns: Sequence[str]
) -> Callable[[str, Answer], None]:
    """A function that writes the answer for one image.

    Args:
        kind: table, jsonl or csv.
        out: the output.
        width: width of the longest name.
        columns: columns of the CSV rows.
    """

    def table(name: str, answer: Answer) -> None:
        shown = visible(printable(name))  # no name is a line of its own
        print(f"{shown:<{min(width, 60)}}  {visible(answer.text())}", file=out)

    def jsonl(name: str, answer: Answer) -> None:
        print(json.dumps({"path": name, **answer.to_json()}, allow_nan=False), file=out)

    rows = csv_writer(out)
    if kind == "csv":
        rows.writerow(["path", *columns])

    def comma(name: str, answer: Answer) -> None:
        rows.writerows([printable(name), *row] for row in answer.csv_rows())

    return {"table": table, "jsonl": jsonl, "csv": comma}[kind]


def printable(name: str) -> str:
    """A file name with escapes for bytes that are not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def run(config: PredictConfig) -> int:
    """Classify and print; 1 if images had to be skipped."""
    return FAILED if predict(config) else DONE
