"""Find faults in a collection of images. Nothing is changed."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from densenet121.audit.copies import Copy, find_copies
from densenet121.audit.facts import ImageFacts, facts_of
from densenet121.audit.findings import KINDS, Audit, Finding
from densenet121.audit.labels import label_of, labels_of_one_kind
from densenet121.audit.page import page
from densenet121.config import AuditConfig, absolute
from densenet121.datasets.groups import check_spelling, group_ids
from densenet121.datasets.image_dataset import ImageDataset
from densenet121.datasets.reading import Reading, make_reading
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.list_rows import ListRules
from densenet121.datasets.sources.open import open_splits
from densenet121.datasets.sources.open_table import open_labelled_training, refuse_label_table
from densenet121.datasets.sources.text import lines_of
from densenet121.utils.errors import InputError, UsageError, some
from densenet121.utils.files import check_output, write_atomic
from densenet121.utils.progress import progress_bar

MULTILABEL = "multilabel"  # the value of the setting
_UNUSABLE = ("empty", "not_a_picture", "truncated", "damaged")


def audit(config: AuditConfig) -> Audit:
    """Check every image; write the page and the list if requested.

    Raises:
        InputError: there are no images to check, or one has no id of its group.
        UsageError: groups cannot be compared without validation images.
        OSError: the page or the list cannot be written.
    """
    result = find(config)
    write(result, config)
    return result


def find(config: AuditConfig) -> Audit:
    """Check every image; nothing is written. It raises what ``audit`` does but the OSError."""
    val_dir = absolute(config.val_dir) if config.val_dir else None
    _check_outputs(config, [absolute(config.source), *([val_dir] if val_dir else [])])
    dataset = _open(config, val_dir)
    _check_outputs(config, [part.source for part in dataset.values()])  # a folder's table
    several = config.task == MULTILABEL
    if config.exclude_list:
        _check_lines(dataset)
    divided = _divided_groups(dataset, config)
    workers = config.num_workers
    reading = make_reading(config.depth or 8, config.window)
    splits: list[str] = []
    indices: list[int] = []
    for split, part in dataset.items():
        splits += [split] * len(part)
        indices += range(len(part))
    with (
        progress_bar("audit", len(indices), unit="image") as advance,
        ThreadPoolExecutor(workers) as pool,
    ):
        tasks = zip(splits, indices, strict=True)
        facts = list(pool.map(partial(_examine, dataset, reading, advance), tasks, chunksize=8))
    names = [dataset[split].paths[index] for split, index in zip(splits, indices, strict=True)]
    labels = [label_of(dataset[split], i) for split, i in zip(splits, indices, strict=True)]
    places = list(zip(splits, names, strict=True))
    copies, leaked = find_copies(splits, labels, facts, config.near)
    findings = [
        *_of_each(places, facts, config),
        *(_of_copy(copy, places, labels) for copy in copies),
        *(f for split, part in dataset.items() for f in _of_split(split, part, config)),
        *(_one_kind(dataset) if several else _class_sets(dataset)),
        *divided,
    ]
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    excluded = _excluded(findings, {places[index] for index in leaked}, len(dataset))
    return Audit(dataset, tuple(findings), excluded)


def write(result: Audit, config: AuditConfig) -> None:
    """Write the page and the list, if requested.

    Raises:
        OSError: one cannot be written.
    """
    if config.exclude_list:
        text = "".join(f"{line}\n" for line in result.excluded)
        write_atomic(absolute(config.exclude_list), text.encode(errors="surrogateescape"))
    if config.page:
        reading = make_reading(config.depth or 8, config.window)
        write_atomic(absolute(config.page), page(result, reading).encode())


def _check_outputs(config: AuditConfig, inputs: Sequence[Path]) -> None:
    """Refuse files that could not be written, or that would replace the lists of images."""
    for field in ("exclude_list", "page"):
        if file := getattr(config, field):
            check_output(absolute(file), field, inputs)


def _check_lines(dataset: Mapping[str, ImageDataset]) -> None:
    """Refuse names that a list of one image a line cannot hold, before the images are read.

    Raises:
        InputError: there is one; as a line it would be another image, or none.
    """
    for part in dataset.values():
        for path in part.paths:
            if path != path.strip() or lines_of(path) != [path]:
                raise InputError(
                    f"{part.root / path}: begins or ends with a blank or has a line break, which "
                    "`exclude_list` cannot hold; rename it, or omit `exclude_list`"
                )


def _open(config: AuditConfig, val_dir: Path | None) -> dict[str, ImageDataset]:
    """The images of each split."""
    source = absolute(config.source)
    if config.task != MULTILABEL:
        refuse_label_table(source)
        found = open_splits(
            source, val_dir, field="source", columns=True, rules=ListRules(**config.list_rules())
        )
        return {str(split): part for split, part in found.items()}
    rules = LabelRules(**config.rules())
    train, val = open_labelled_training(source, val_dir, rules, field="source")
    return {"train": train} | ({"val": val} if val is not None else {})


def _examine(
    dataset: dict[str, ImageDataset],
    reading: Reading,
    advance: Callable[[], None],
    task: tuple[str, int],
) -> ImageFacts:
    facts = facts_of(dataset[task[0]], task[1], reading)
    advance()
    return facts


def _of_each(
    places: Sequence[tuple[str, str]], facts: Sequence[ImageFacts], config: AuditConfig
) -> list[Finding]:
    found = []
    for place, image in zip(places, facts, strict=True):
        if image.fault is not None:
            found.append(Finding(image.fault, *place, image.reason))
        found += [Finding(kind, *place, detail) for kind, detail in image.remarks]
        size = f"{image.width} x {image.height} pixels"
        if image.fault is None and min(image.height, image.width) < config.least_side:
            found.append(Finding("tiny", *place, size))
        if image.height * image.width > config.most_pixels * 1e6:
            found.append(Finding("huge", *place, size))
    return found


def _of_copy(copy: Copy, places: Sequence[tuple[str, str]], labels: Sequence[str]) -> Finding:
    """The finding for a copy: it names the first of the images before it."""
    place, first = places[copy.index], places[copy.first]
    kind: str = copy.relation
    if copy.relation == "copy":
        kind = "exact_duplicate" if copy.is_exact else "near_duplicate"
    word = "same pixels as" if copy.is_exact else "nearly the same image as"
    detail = f"{word} {'/'.join(first)}"
    if copy.number > 1 and copy.relation != "copy":
        detail += f" and {copy.number - 1} more like it"
    if copy.relation == "two_classes":
        detail += f": {labels[copy.index]} and {some(copy.labels, 20)}"
    return Finding(kind, *place, detail, first)


def _of_split(split: str, dataset: ImageDataset, config: AuditConfig) -> list[Finding]:
    found = [Finding("ignored", split, path, "skipped") for path in dataset.ignored]
    if dataset.labels.ndim == 2:
        return found
    counts = dataset.counts()
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] > config.imbalance * counts[least]:
        detail = (
            f"{counts[most]} images of {dataset.class_names[most]}, "
            f"{counts[least]} of {dataset.class_names[least]}"
        )
        found.append(Finding("imbalance", split, dataset.class_names[least], detail))
    return found


def _one_kind(dataset: dict[str, ImageDataset]) -> list[Finding]:
    return [Finding("one_kind", *place) for place in labels_of_one_kind(dataset)]


def _class_sets(dataset: dict[str, ImageDataset]) -> list[Finding]:
    if len(dataset) < 2:
        return []
    names = {
        split: [name for name, count in zip(part.class_names, part.counts(), strict=True) if count]
        for split, part in dataset.items()
    }
    return [
        Finding("class_sets", split, name, f"is in {split} but not in {other}")
        for split, other in (("train", "val"), ("val", "train"))
        for name in names[split]
        if name not in set(names[other])
    ]


def _divided_groups(dataset: dict[str, ImageDataset], config: AuditConfig) -> list[Finding]:
    """One finding for each group, such as a patient, that is not in one split alone."""
    if config.group is None:
        return []
    if len(dataset) < 2:
        raise UsageError("`group` compares train with val, but there is no val; see `val_dir`")
    of_group: dict[str, dict[str, list[str]]] = defaultdict(lambda: {"train": [], "val": []})
    for split, part in dataset.items():
        ids = group_ids(part.paths, part.columns, config.group, str(part.source))
        for name, path in zip(ids, part.paths, strict=True):
            of_group[name][split].append(path)
    check_spelling(list(of_group), config.group)
    return [
        Finding(
            "group_in_both",
            "val",
            paths["val"][0],
            f"{name}: {len(paths['val'])} images in val, {len(paths['train'])} in train",
            ("train", paths["train"][0]),
        )
        for name, paths in sorted(of_group.items())
        if paths["train"] and paths["val"]
    ]


def _excluded(
    findings: Sequence[Finding], leaked: Collection[tuple[str, str]], num_splits: int
) -> tuple[str, ...]:
    """Lines of unusable images, of exact copies, and of training images that are in val.

    They name the split where there are several: the same path may be another image in the other.
    """
    kinds = (*_UNUSABLE, "exact_duplicate")
    places = {(finding.split, finding.path) for finding in findings if finding.kind in kinds}
    places.update(leaked)
    lines = {"/".join(place) if num_splits > 1 else place[1] for place in places}
    return tuple(sorted(lines))
