"""Settings that say where the labels of a table are, and what their cells mean."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from densenet121.config.shared import AnyPath, Settings
from densenet121.config.values import absolute
from densenet121.utils.errors import UsageError

Names = Annotated[str, "A,B,..."]
Column = Annotated[str, "COLUMN"]
Meaning = Literal["ignore", "0", "1"]


@dataclass(frozen=True, kw_only=True)
class LabelSettings(Settings):
    """Labels of a table: one column a label, or one column that lists them.

    Attributes:
        labels: columns that are labels, one a label: 1, 0, -1, blank, true, false, yes or no
            (default: the labels that have a probability).
        label_column: the one column that holds the labels of an image, instead of a column a label.
        label_separator: what separates several labels in that column, such as "|" (default: each
            image has one label).
        negative_label: the word in that column for an image without any label, such as "No
            Finding" (default: none).
        ignore_labels: labels in that column that do not count (default: none).
        uncertain: what a cell of -1 means: ignore leaves it out for this label, 0 negative, 1
            positive; or LABEL=CHOICE for labels that differ, as in "ignore,Edema=1" (default: such
            cells are an error).
        missing: what a blank cell means: ignore leaves it out for this label, 0 negative; or
            LABEL=CHOICE for labels that differ (default: such cells are an error).
    """

    section: ClassVar[str] = "labels"
    labels: Names | None = None
    label_column: Column | None = None
    label_separator: str | None = None
    negative_label: str | None = None
    ignore_labels: Names | None = None
    uncertain: Annotated[str, "CHOICE"] | None = None
    missing: Annotated[str, "CHOICE"] | None = None

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The columns that are labels."""
        return None if self.labels is None else names_in("labels", self.labels)

    @property
    def uncertain_choice(self) -> dict[str, Meaning] | None:
        """What a -1 means, by label; "" for those that are not named."""
        return _choices("uncertain", self.uncertain, ("ignore", "0", "1"))

    @property
    def missing_choice(self) -> dict[str, Meaning] | None:
        """What a blank cell means, by label; "" for those that are not named."""
        return _choices("missing", self.missing, ("ignore", "0"))

    @property
    def ignored_labels(self) -> tuple[str, ...]:
        """The labels that do not count."""
        return names_in("ignore_labels", self.ignore_labels) if self.ignore_labels else ()

    def rules(self, names: tuple[str, ...] = ()) -> dict[str, Any]:
        """The fields of ``LabelRules``; ``names`` are the labels of weights, which override."""
        return {
            "names": names or self.label_names or (),
            "label_column": self.label_column,
            "separator": self.label_separator,
            "negative": self.negative_label,
            "ignored": self.ignored_labels,
            "uncertain": self.uncertain_choice,
            "missing": self.missing_choice,
        }

    def check(self) -> None:
        """Refuse settings of both kinds of table, and of neither."""
        _ = self.label_names, self.ignored_labels, self.uncertain_choice, self.missing_choice
        if self.label_column is None:
            for name in ("label_separator", "negative_label", "ignore_labels"):
                if getattr(self, name) is not None:
                    raise UsageError(f"--{name} goes with --label_column, which is not given")
        elif self.labels is not None or self.uncertain is not None:
            other = "labels" if self.labels is not None else "uncertain"
            raise UsageError(
                f"--{other} is for a column a label, --label_column for one column with all; "
                "give one of the two"
            )
        if self.label_separator == "" or self.label_column == "":
            raise UsageError("--label_separator and --label_column must not be empty")


@dataclass(frozen=True, kw_only=True)
class LabelTableSettings(LabelSettings):
    """A table of images with several labels each.

    Attributes:
        labels: columns that are labels, one a label: 1, 0, -1, blank, true, false, yes or no
            (default: every column that has nothing else; the log names them); with one class per
            image the columns of the classes, of which exactly one has a 1 (default then: none).
        label_column: the one column that holds the labels of an image, instead of a column a label;
            with one class per image that of the class (default then: the one called label, class,
            target or class_name).
        path_column: column of the paths, or of the names of the images without folders and perhaps
            without extension (default: the one called path, image, file, filename, file_name,
            image_path or filepath).
        image_dir: folder that the paths of a list or table are relative to, and below which names
            are looked for (default: the folder of the list).
    """

    section: ClassVar[str] = "labels"
    labels: Names | None = None
    label_column: Column | None = None
    path_column: Column | None = None
    image_dir: AnyPath | None = None

    def rules(self, names: tuple[str, ...] = ()) -> dict[str, Any]:
        """The fields of ``LabelRules``; ``names`` are the labels of weights, which override."""
        return {**self._place(), **super().rules(names)}

    def list_rules(self) -> dict[str, Any]:
        """The fields of ``ListRules``, for one class per image."""
        classes = self.label_names or ()
        return {"label_column": self.label_column, "class_columns": classes, **self._place()}

    def _place(self) -> dict[str, Any]:
        folder = None if self.image_dir is None else absolute(self.image_dir)
        return {"path_column": self.path_column, "image_dir": folder}

    @property
    def names_a_table(self) -> bool:
        """Whether one of these settings is given."""
        one_class = self.path_column, self.label_column, self.labels, self.image_dir
        return self.names_several_labels or any(value is not None for value in one_class)

    @property
    def names_several_labels(self) -> bool:
        """Whether one of those is given that mean nothing with one class per image."""
        given = (
            *(self.label_separator, self.negative_label, self.ignore_labels),
            *(self.uncertain, self.missing),
        )
        return any(value is not None for value in given)


@dataclass(frozen=True, kw_only=True)
class TaskSettings(LabelTableSettings):
    """What a label means.

    Attributes:
        task: single_label (each image has one class) or multilabel (each image has any number of
            labels, some perhaps unknown, from a table).
    """

    section: ClassVar[str] = "labels"
    task: Literal["single_label", "multilabel"] = "single_label"

    def check(self) -> None:
        """Refuse settings of a table of labels for another task."""
        if self.task == "single_label" and self.names_several_labels:
            raise UsageError("the settings of several labels per image need --task multilabel")


def _choices(
    flag: str, text: str | None, allowed: tuple[Meaning, ...]
) -> dict[str, Meaning] | None:
    """The choice for all labels (""), and for those that are named, as in "ignore,Edema=1"."""
    if text is None:
        return None
    known: dict[str, Meaning] = {name: name for name in allowed}
    found: dict[str, Meaning] = {}
    for element in text.split(","):
        name, _, choice = (part.strip() for part in element.rpartition("="))
        if choice not in known or name in found:
            raise UsageError(
                f"--{flag} must be {', '.join(allowed[:-1])} or {allowed[-1]}, and LABEL=CHOICE "
                f"for labels that differ, separated by commas, got {text!r}"
            )
        found[name] = known[choice]
    return found


def names_in(flag: str, text: str) -> tuple[str, ...]:
    """The names of a comma-separated list.

    Raises:
        UsageError: an empty name, or one that occurs twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(f"--{flag} must be names separated by commas, got {text!r}")
    if len(set(names)) < len(names):
        raise UsageError(f"--{flag} has a name twice: {text!r}")
    return names


def pairs_in(flag: str, text: str) -> dict[str, str]:
    """The pairs of a comma-separated list of ``name=value``.

    Raises:
        UsageError: an element is no such pair, or a name occurs twice.
    """
    found: dict[str, str] = {}
    for element in text.split(","):
        name, equals, value = (part.strip() for part in element.rpartition("="))
        if not (name and equals and value):
            raise UsageError(
                f"--{flag} must be label=value pairs separated by commas, got {text!r}"
            )
        if name in found:
            raise UsageError(f"--{flag} has {name} twice")
        found[name] = value
    return found
