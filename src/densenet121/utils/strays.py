"""Name what is there in place of the data: pointers, web pages and links that lead nowhere."""

import os
import re
from pathlib import Path

from densenet121.utils.errors import InputError

_LFS = b"version https://git-lfs.github.com/spec/"
_ANNEX = "/annex/objects/"  # in the links and pointers of git-annex and DataLad
_GET = "run git annex get in its repository"
# A DICOM file begins with 128 bytes and the mark DICM; older ones with their first element. Some
# programs leave out the 128 bytes alone, or begin with the elements that follow the mark.
_BARE_DICOM = re.compile(
    rb"\x08\0(\0\0|[\x05\x08\x12-\x18]\0)|\0\x08\0[\0\x05\x08\x12-\x18]"
    rb"|\x02\0(\0\0UL|\x01\0OB|[\x02\x03\x10\x12]\0UI)",
    re.DOTALL,
)
_EARLY_MARK = b"DICM\x02\0"
# First bytes of images that are not read. ISO media files have their kind after a length.
_OTHER_IMAGES = (
    (re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb"\0\0\0\x0cJXL \r\n|\xff\x0a"), "JPEG XL"),
    (re.compile(rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51"), "JPEG 2000"),
    (re.compile(rb"II\+\0|MM\0\+"), "BigTIFF"),
)
# Files of Excel (also before 2007), LibreOffice and Numbers. The newer ones are zip files, as .npz
# and weights of torch are, whose folder is called as the file was.
_OFFICE = re.compile(
    rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1|PK\x03\x04.{26}(\[Content_Types\]\.xml|_rels/\.rels|"
    rb"docProps/(app|core)\.xml|xl/work|mimetypeapplication/vnd\.oasis|Index/Document)",
    re.DOTALL,
)
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml version")


def stray(start: bytes) -> str | None:
    """What a file is instead of data, by its first bytes, and what to do; None for anything else.

    Args:
        start: the first bytes, 512 or more if the file has them.
    """
    if start.startswith(_LFS):
        return "a git-LFS pointer, not the file itself; run git lfs pull in its repository"
    if start.startswith(_ANNEX.encode()):
        return f"a git-annex pointer, not the file itself; {_GET}"
    if _BARE_DICOM.match(start):
        return "DICOM without the mark DICM of a file; write it anew as a DICOM file"
    if start.startswith(_EARLY_MARK):
        return "DICOM without the 128 bytes before its mark; write it anew as a DICOM file"
    if _OFFICE.match(start):
        return "a spreadsheet (or another office file); save the table as CSV in UTF-8"
    text = start[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES):
        return (
            "a web page saved in place of the file (an error, a login or a preview); download the "
            "file itself"
        )
    return None


def unread_image(start: bytes) -> str | None:
    """The format of an image that is not read, by its first bytes, and what to do."""
    for first, name in _OTHER_IMAGES:
        if first.match(start):
            return f"{name}, which is not read; convert it to PNG or JPEG"
    return None


def broken_link(path: str | os.PathLike[str]) -> str | None:
    """Where a link leads, if there is nothing, and what to do; None for anything else."""
    try:
        os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        if os.path.islink(path):  # noqa: PTH114 (any text)
            target = os.readlink(path)  # noqa: PTH115
            advice = _GET if _ANNEX in target else "remove the link, or mount what it leads to"
            return f"a link to {target}, which is not there; {advice}"
    except (OSError, ValueError):  # such as a link to itself; a name that no file can have
        pass
    return None


def unopened(error: OSError) -> str:
    """Why a file cannot be opened: what the system says, or that it is a link to nothing."""
    reason = error.strerror or str(error)
    if not isinstance(error, FileNotFoundError) or error.filename is None:
        return reason
    return broken_link(os.fsdecode(error.filename)) or reason


def refuse_stray(file: Path) -> None:
    """Refuse a file that is a stand-in for the data.

    Raises:
        InputError: it is one, or cannot be read.
    """
    try:
        with file.open("rb") as opened:
            instead = stray(opened.read(512))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({unopened(error)})") from None
    if instead:
        raise InputError(f"{file}: is {instead}")
