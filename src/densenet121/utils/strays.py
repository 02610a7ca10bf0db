"""Name files that are saved in place of the data: git-LFS pointers and web pages."""

_LFS = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml version")


def stray(start: bytes) -> str | None:
    """What a file is instead of data, by its first bytes, and what to do; None for anything else.

    Args:
        start: the first bytes, 512 or more if the file has them.
    """
    if start.startswith(_LFS):
        return "a git-LFS pointer, not the file itself; run git lfs pull in its repository"
    text = start[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES):
        return (
            "a web page saved in place of the file (an error, a login or a preview); download the "
            "file itself"
        )
    return None
