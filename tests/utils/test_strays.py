"""Files that are not the data they stand for."""

import zipfile
from pathlib import Path

import pytest
import torch

from densenet121.datasets.sources.label_table import LabelRules, read_label_table
from densenet121.datasets.sources.open import open_training
from densenet121.utils.errors import InputError
from densenet121.utils.strays import stray

# The first member of files that openpyxl, Excel, LibreOffice and Numbers write.
FIRST = ["docProps/app.xml", "[Content_Types].xml", "_rels/.rels", "mimetype", "Index/Document.iwa"]


@pytest.mark.parametrize("name", [*FIRST, None])
@pytest.mark.parametrize("suffix", [".xlsx", ".csv"])
def test_a_spreadsheet_is_to_be_saved_as_csv(name: str | None, suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"labels{suffix}"
    if name is None:  # of Excel before 2007
        file.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000))
    else:
        with zipfile.ZipFile(file, "w") as made:
            made.writestr(name, "application/vnd.oasis.opendocument.spreadsheet")
    told = rf"^{file}: is a spreadsheet .*; save the table as CSV in UTF-8$"
    with pytest.raises(InputError, match=told):
        open_training(file)
    with pytest.raises(InputError, match=told):
        read_label_table(file, LabelRules())


@pytest.mark.parametrize("name", ["xl", "Index", "docProps", "_rels", "mimetype"])
def test_weights_are_no_spreadsheet_whatever_they_are_called(name: str, tmp_path: Path) -> None:
    """torch calls the folder in a file as the file."""
    torch.save({"a": torch.zeros(1)}, tmp_path / f"{name}.pth")
    assert stray((tmp_path / f"{name}.pth").read_bytes()[:512]) is None
