"""Tables as others publish them: names without folders or extensions, columns, another folder."""

from pathlib import Path

import pytest

from densenet121.datasets.division import images_with_class
from densenet121.datasets.sources.label_table import LabelRules
from densenet121.datasets.sources.list_rows import ListRules
from densenet121.datasets.sources.open import open_evaluation, open_splits, open_training
from densenet121.datasets.sources.open_table import open_labelled_training
from densenet121.utils.errors import InputError, UsageError


def place(root: Path, *paths: str) -> Path:
    """Files whose content is their path."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


HAM = ["part_1/ISIC_01.jpg", "part_1/ISIC_02.jpg", "part_2/ISIC_03.JPG", "part_2/ISIC_04.png"]
ROWS = "HAM_1,ISIC_03,mel\nHAM_1,ISIC_01,nv\nHAM_2,ISIC_04,nv\n"


@pytest.fixture
def ham(tmp_path: Path) -> Path:
    """HAM10000's table: names without extension, of images in two folders."""
    place(tmp_path, *HAM)
    return write(tmp_path / "HAM10000_metadata.csv", f"lesion_id,image_id,dx\n{ROWS}")


BY_ID = ListRules(path_column="image_id", label_column="dx")


def test_names_without_folder_and_extension_are_found_below_the_table(ham: Path) -> None:
    found, _ = open_training(ham, rules=BY_ID)
    assert found.paths == ["part_2/ISIC_03.JPG", "part_1/ISIC_01.jpg", "part_2/ISIC_04.png"]
    assert [found.read(n) for n in range(3)] == [path.encode() for path in found.paths]
    assert (found.class_names, found.labels.tolist()) == (("mel", "nv"), [0, 1, 1])
    assert found.notes == (
        f"{ham}: the images were found by their names below {ham.parent}: ISIC_03 is "
        "part_2/ISIC_03.JPG",
    )
    columns = open_splits(ham, columns=True, rules=BY_ID)["train"].columns
    assert columns == {"lesion_id": ["HAM_1", "HAM_1", "HAM_2"]}
    assert open_evaluation(ham, rules=BY_ID).paths == found.paths


def test_they_can_be_divided_by_another_column(ham: Path) -> None:
    found = images_with_class(ham, rules=BY_ID)
    assert list(found.paths) == ["part_2/ISIC_03.JPG", "part_1/ISIC_01.jpg", "part_2/ISIC_04.png"]
    assert found.columns["lesion_id"] == ["HAM_1", "HAM_1", "HAM_2"]
    assert "found by their names" in found.notes[0]


def test_several_labels_are_found_by_name_too(tmp_path: Path) -> None:
    """NIH's table has file names, whose images lie in images_001/images and so on."""
    place(tmp_path, "images_001/images/1_000.png", "images_002/images/2_000.png")
    text = "Image Index,Finding Labels\n2_000.png,Mass|Nodule\n1_000.png,No Finding\n"
    file = write(tmp_path / "Data_Entry_2017.csv", text)
    rules = LabelRules(None, None, (), "Finding Labels", "|", "No Finding")
    with pytest.raises(UsageError, match="no column is called like the path; pass `path_column`"):
        open_labelled_training(file, None, rules)
    rules = LabelRules("Image Index", None, (), "Finding Labels", "|", "No Finding")
    found, _ = open_labelled_training(file, None, rules)
    assert found.paths == ["images_002/images/2_000.png", "images_001/images/1_000.png"]
    assert "2_000.png is images_002/images/2_000.png" in found.notes[0]


def test_lines_of_a_path_and_a_label_may_have_names(tmp_path: Path) -> None:
    place(tmp_path, *HAM)
    found, _ = open_training(write(tmp_path / "l.txt", "ISIC_04 a\nISIC_01 b\n"))
    assert found.paths == ["part_2/ISIC_04.png", "part_1/ISIC_01.jpg"]


def test_an_id_with_dots_is_a_name(tmp_path: Path) -> None:
    """Instance UIDs of DICOM, as in CBIS-DDSM's and VinDr's tables."""
    place(tmp_path, "d/1.2.826.0.1.png", "d/1.2.826.0.2.png", "d/1.2.826.0.png")
    text = "path,label\n1.2.826.0.1,a\n1.2.826.0,b\n"
    found, _ = open_training(write(tmp_path / "l.csv", text))
    assert found.paths == ["d/1.2.826.0.1.png", "d/1.2.826.0.png"]


def test_a_path_without_extension_is_found_in_its_folder_alone(tmp_path: Path) -> None:
    place(tmp_path, "a/1.png", "b/1.png", "a/2.png")
    text = "path,label\nb/1,x\na/1,y\na/2,y\n"
    found, _ = open_training(write(tmp_path / "l.csv", text))
    assert found.paths == ["b/1.png", "a/1.png", "a/2.png"]


@pytest.mark.parametrize("also", ["other/ISIC_01.jpg", "part_1/ISIC_01.png"])
def test_a_name_of_two_images_is_refused(also: str, ham: Path) -> None:
    place(ham.parent, also)
    both = ", ".join(sorted(["part_1/ISIC_01.jpg", also]))
    with pytest.raises(InputError, match=rf"line 3: ISIC_01: is the name of {both}; pass the fol"):
        open_training(ham, rules=BY_ID)


def test_hidden_folders_and_those_of_systems_have_no_images(ham: Path) -> None:
    place(ham.parent, f".cache/{HAM[0]}", f"@eaDir/{HAM[2]}", "part_1/._ISIC_01.jpg")
    assert open_training(ham, rules=BY_ID)[0].paths[1] == "part_1/ISIC_01.jpg"


def test_all_images_are_found_by_name_or_none(ham: Path) -> None:
    """A copy elsewhere must not take the place of an image that is missing."""
    place(ham.parent, "ISIC_05.jpg", "train/ISIC_06.jpg")
    write(ham, "image_id,dx\nISIC_05.jpg,a\nISIC_06.jpg,b\n")
    with pytest.raises(InputError, match=r"line 3: .*/ISIC_06.jpg: No such file or directory; pa"):
        open_training(ham, rules=BY_ID)
    write(ham, "image_id,dx\nISIC_01,a\nISIC_07,b\n")
    with pytest.raises(InputError, match=r"line 3: ISIC_07: no image below .* has this name, as"):
        open_training(ham, rules=BY_ID)


def test_names_are_not_found_in_the_folder_of_another_split(tmp_path: Path) -> None:
    """Where test/ is not there, 1.png of test.csv must not be that of train/."""
    place(tmp_path, "train_images/1.png", "train_images/2.png")
    text = "path,label\n1,a\n2,b\n"
    for name in ("train.csv", "labels.csv"):
        assert len(open_training(write(tmp_path / name, text))[0]) == 2
    file = write(tmp_path / "test.csv", text)
    with pytest.raises(
        InputError, match=r"line 2: the name is found in train_images/, which is ca"
    ):
        open_evaluation(file)
    rules = ListRules(image_dir=tmp_path / "train_images")
    assert len(open_evaluation(file, rules=rules)) == 2


def test_one_image_under_two_names_is_refused(ham: Path) -> None:
    write(ham, "image_id,dx\nISIC_01,a\nISIC_01.jpg,b\n")
    with pytest.raises(InputError, match=r"line 3: ISIC_01.jpg is already in line 2; with the la"):
        open_training(ham, rules=BY_ID)
    write(ham, "image_id,dx\nISIC_01,1\nISIC_01.jpg,0\n")
    with pytest.raises(InputError, match=r"line 3, column image_id: ISIC_01.jpg is already in li"):
        open_labelled_training(ham, None, LabelRules(path_column="image_id"))


def test_folders_that_lead_into_themselves_are_read_once(ham: Path) -> None:
    (ham.parent / "part_1" / "again").symlink_to(ham.parent)
    elsewhere = place(ham.parent.parent / "elsewhere", "ISIC_09.jpg")
    (ham.parent / "linked").symlink_to(elsewhere)
    write(ham, "image_id,dx\nISIC_09,a\nISIC_01,b\n")
    found, _ = open_training(ham, rules=BY_ID)
    assert found.paths == ["linked/ISIC_09.jpg", "part_1/ISIC_01.jpg"]


def test_paths_may_be_relative_to_another_folder(tmp_path: Path) -> None:
    """CheXpert's table lies in the folder that its paths begin with."""
    root = place(tmp_path / "x", "CheXpert/train/p1/a.jpg", "CheXpert/train/p2/b.jpg")
    text = "Path,Edema\nCheXpert/train/p1/a.jpg,1\nCheXpert/train/p2/b.jpg,0\n"
    file = write(root / "CheXpert" / "train.csv", text)
    with pytest.raises(InputError, match=rf"there is one below {root}; pass it as `image_dir`"):
        open_labelled_training(file, None, LabelRules())
    found, _ = open_labelled_training(file, None, LabelRules(image_dir=root))
    assert (found.root, found.source, found.notes) == (root, file, ())
    assert found.read(1) == b"CheXpert/train/p2/b.jpg"
    listed = write(tmp_path / "l.csv", text.replace("Edema", "label"))
    assert open_evaluation(listed, rules=ListRules(image_dir=root)).read(0) == found.read(0)
    with pytest.raises(InputError, match=r"pass another folder for them as `image_dir`"):
        open_training(listed)
    write(listed, "path,label\nnone.jpg,1\n")
    with pytest.raises(InputError, match=r"directory; paths are relative to `image_dir`"):
        open_training(listed, rules=ListRules(image_dir=root))
    with pytest.raises(InputError, match=r"`image_dir` .*gone: there is no such folder"):
        open_training(listed, rules=ListRules(image_dir=tmp_path / "gone"))


def test_the_classes_stay_beside_the_list(tmp_path: Path) -> None:
    place(tmp_path / "images", "a.png", "b.png")
    write(tmp_path / "classes.txt", "one\ntwo\n")
    file = write(tmp_path / "l.csv", "path,label\na.png,1\nb.png,0\n")
    found, _ = open_training(file, rules=ListRules(image_dir=tmp_path / "images"))
    assert found.class_names == ("one", "two")


ONE_HOT = "image,MEL,NV,BCC\nISIC_01,0.0,1.0,0.0\nISIC_03,1.0,0.0,0.0\nISIC_04,0.0,1.0,0.0\n"


def test_the_class_is_the_column_with_a_1(ham: Path) -> None:
    """ISIC's tables."""
    write(ham, ONE_HOT)
    rules = ListRules(class_columns=("NV", "MEL", "BCC"))
    found, _ = open_training(ham, rules=rules)
    assert (found.class_names, found.labels.tolist()) == (("MEL", "NV"), [1, 0, 1])
    divided = images_with_class(ham, rules=rules)
    assert (divided.names, divided.columns["label"]) == (["MEL", "NV"], ["NV", "MEL", "NV"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ONE_HOT.replace("1.0,0.0\nISIC_03", "1.0,1\nISIC_03"), r"line 2: the classes NV, BCC ha"),
        (ONE_HOT.replace("1.0,0.0\nISIC_03", "0.0,0\nISIC_03"), r"line 2: no class has a 1; one c"),
        (
            ONE_HOT.replace("1.0,0.0\nISIC_03", "1.0,\nISIC_03"),
            r'line 2, column BCC: "" is neither',
        ),
        (ONE_HOT.replace("BCC", "AK"), r"no column named BCC \(`labels`\); it has image, MEL, NV,"),
        (ONE_HOT.replace("MEL", "BCC"), r"several columns named BCC \(`labels`\)"),
    ],
)
def test_columns_of_classes_that_cannot_be_used_are_named(
    text: str, message: str, ham: Path
) -> None:
    write(ham, text)
    with pytest.raises(InputError, match=message):
        open_training(ham, rules=ListRules(class_columns=("NV", "BCC")))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            ListRules(path_column="id"),
            r"no column named id \(`path_column`\); it has lesion_",
        ),
        (ListRules(label_column="x"), r"no column named path, image, .* the one .* as `path_colum"),
        (ListRules("image_id", "x"), r"no column named x \(`label_column`\)"),
        (ListRules("image_id"), r"meant as `label_column`, or a column for each class as `labels`"),
    ],
)
def test_columns_that_are_not_there_are_named(rules: ListRules, message: str, ham: Path) -> None:
    with pytest.raises(InputError, match=message):
        open_training(ham, rules=rules)


def test_settings_of_a_list_are_refused_for_other_sources(ham: Path, image_folder: Path) -> None:
    lines = write(ham.parent / "l.txt", "ISIC_01 a\nISIC_03 b\n")
    for rules, name in (
        (ListRules(label_column="a"), "label_column"),
        (ListRules(class_columns=("a", "b")), "labels"),
    ):
        with pytest.raises(UsageError, match=rf"l.txt: has no columns, so `{name}` means nothing"):
            open_training(lines, rules=rules)
        with pytest.raises(InputError, match=rf"l.txt: has no columns, so `{name}` means nothing"):
            images_with_class(lines, rules=rules)
    for rules in (ListRules(path_column="a"), ListRules(image_dir=ham.parent)):
        with pytest.raises(UsageError, match=r"is for a list \(.txt, .lst, .csv, .tsv\), but `d"):
            open_training(image_folder, rules=rules)
