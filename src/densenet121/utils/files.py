"""Write files atomically: a reader sees the old or the new content, never a part."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densenet121.utils.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what the system says of a full disk
_ENDLESS = 2**28  # bytes of what is no file, such as /dev/zero


def write_atomic(path: Path, data: bytes | memoryview) -> None:
    """Write to a temporary file beside ``path``, sync it, rename it into place, sync the folder.

    Raises:
        OSError: disk full, no permission, or ``path`` is a device or pipe; it is unchanged, the
            temporary file is removed. Its ``filename`` is ``path``.
    """
    write_together({path: data})


def write_together(files: Mapping[Path, bytes | memoryview]) -> None:
    """Write files that belong together: where one has no room, all are as before.

    Raises:
        OSError: as of ``write_atomic``.
    """
    made: dict[Path, Path] = {}
    try:
        for path, data in files.items():
            if is_special(path):
                raise OSError(errno.EINVAL, _SPECIAL, str(path))
            made[path] = temporary_beside(path, "tmp")
            with _named(path):
                made[path].unlink(missing_ok=True)
                with made[path].open("xb") as file:  # never through a link of another user
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
        for path, temporary in made.items():
            with _named(path):
                temporary.replace(path)
    except BaseException:
        for temporary in made.values():
            with contextlib.suppress(OSError):  # a disk that is read-only, as before
                temporary.unlink(missing_ok=True)
        raise
    for folder in dict.fromkeys(path.parent for path in made):
        sync_folder(folder)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make an error name a path: of a full disk it has no name, else that of a temporary file."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        del error.filename2  # None would be a second name in its text
        raise


_SPECIAL = "is a device or a pipe, not a file"


def is_special(path: Path) -> bool:
    """Whether a file renamed to this path would take the place of a device, pipe or socket.

    Root would replace /dev/null for every program. /dev/stdout leads to a file where output is
    redirected, but is a link that all programs share.
    """
    if real_path(path.parent) == Path("/dev"):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


# What the system says of a folder where folders cannot be synced, as of SMB, 9p or FUSE, or where
# it may be written but not listed.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM)


def sync_folder(path: Path) -> None:
    """Make what was renamed in a folder last: without this a power failure may undo it.

    Where the file system has no such thing, it is as safe as it can be there.

    Raises:
        OSError: the disk fails. Its ``filename`` is ``path``.
    """
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            error.filename = str(path)
            raise


def temporary_beside(path: Path, kind: str) -> Path:
    """A name for what becomes ``path``; what dead processes left under such names is removed."""
    name = _short(path.name)
    for left in path.parent.glob(f".{glob.escape(name)}.*.{kind}"):
        number = left.name.removeprefix(f".{name}.").removesuffix(f".{kind}")
        if number.isdecimal() and not _is_alive(int(number)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
    return path.with_name(f".{name}.{os.getpid()}.{kind}")


_LONGEST = 100  # bytes of a name that is made longer; eCryptfs takes names of 143, most others 255


def _short(name: str) -> str:
    """A name, or what stands for a long one, so that the system takes it with more at its ends."""
    data = os.fsencode(name)
    return name if len(data) <= _LONGEST else hashlib.sha256(data).hexdigest()[:32]


def is_taken(path: Path) -> bool:
    """Whether there is anything but an empty folder, so that ``new_folder`` cannot write there.

    What processes that were killed had begun in an empty folder is removed.
    """
    if path.is_dir():
        temporary_beside(path / real_path(path).name, "partial")
        return any(path.iterdir())
    return path.exists()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder whose content is at ``path``, which is empty or missing, on success, else removed.

    An empty one stays: it may be a link, the root of a disk, or in a folder that is another user's.

    Raises:
        OSError: it cannot be written, is a link to itself, or another process has written there
            meanwhile. Nothing was written. Of a full disk its ``filename`` is in ``path``.
    """
    target = real_path(path)
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    exists = target.is_dir()
    folder = temporary_beside(target / target.name if exists else target, "partial")
    _make(folder, path, parents=True)
    try:
        yield folder
        if exists:
            _move_up(folder)
        else:
            _rename(folder, target)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        _name(error, folder, path)
        raise


def _make(folder: Path, path: Path, parents: bool = False) -> None:
    """Make the folder of what becomes ``path``, which an error names, as of a read-only disk."""
    try:
        folder.mkdir(parents=parents)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _rename(folder: Path, target: Path) -> None:
    """Rename a folder.

    Raises:
        OSError: another process has written there meanwhile; its only name is ``target``.
    """
    try:
        folder.rename(target)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None


def _name(error: BaseException, folder: Path, path: Path) -> None:
    """Make an error of a full disk say what was being written, not the folder that is removed."""
    if isinstance(error, OSError) and error.errno in FULL:
        said = Path(os.fsdecode(error.filename or folder))
        if said.is_relative_to(folder):
            error.filename = str(path / said.relative_to(folder))
            del error.filename2


def _move_up(folder: Path) -> None:
    """Move all that is in a folder into the one that it is in, or nothing, and remove it.

    Raises:
        OSError: another process has written there, or the system refuses.
    """
    if any(other != folder for other in folder.parent.iterdir()):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder.parent))
    moved: list[Path] = []
    try:
        for part in sorted(folder.iterdir()):  # of shards first their index, which names all
            moved.append(part)
            part.rename(folder.parent / part.name)
        folder.rmdir()
    except BaseException:
        for part in moved:
            with contextlib.suppress(OSError):
                (folder.parent / part.name).rename(part)
        raise


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` that is removed in the end.

    Raises:
        OSError: it cannot be written. Of a full disk its ``filename`` is ``path``.
    """
    folder = temporary_beside(path, "partial")
    _make(folder, path)
    try:
        yield folder
    except OSError as error:
        _name(error, folder / path.name, path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically. nan and inf are refused, as they are not valid JSON."""
    write_atomic(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """What ``write_json`` writes."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    # A file name that is not UTF-8 contains surrogates; they become JSON escapes.
    return (text + "\n").encode(errors="backslashreplace")


def real_path(path: Path) -> Path:
    """The path without links; those that lead to themselves stay, and opening them is an error.

    ``Path.resolve`` raises a RuntimeError for such links until Python 3.13.
    """
    return Path(os.path.realpath(path))


def read_input(path: Path) -> bytes:
    """The content of a text that a user names: a file, or a pipe into which a program writes.

    Raises:
        OSError: it cannot be read, or is a pipe without a writer, which would be waited for for
            ever, or something without an end. ``strerror`` says so.
    """
    nonblocking = getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, way: os.open(name, way | nonblocking)) as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISREG(mode):
            return file.read()
        os.set_blocking(file.fileno(), True)
        data = file.read(_ENDLESS)
    if len(data) == _ENDLESS:
        raise OSError(errno.EINVAL, "is no file and seems to have no end", str(path))
    if stat.S_ISFIFO(mode) and not data:
        raise OSError(errno.EINVAL, "is a pipe into which nothing is written", str(path))
    return data


def is_utf8(path: Path) -> bool:
    """Whether a path can be given to a library that opens no others, such as one in Latin-1."""
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output(path: Path, field: str, inputs: Sequence[Path] = ()) -> None:
    """Refuse a file that could not be written at the end, or that would replace an input.

    Args:
        path: the file to write.
        field: the setting that names it.
        inputs: files that are read.

    Raises:
        InputError: its folder does not exist or cannot be written, it is a folder, a device or a
            pipe, or it is one of the inputs.
    """
    if not path.parent.is_dir():
        raise InputError(f"`{field}` {path}: there is no folder {path.parent}")
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # such as a name that is too long
        raise InputError(f"`{field}` {path}: {error.strerror}; name another file") from None
    if not os.access(path.parent, os.W_OK):
        raise InputError(
            f"`{field}` {path}: nothing can be written into {path.parent} (a read-only disk, or no "
            "permission); name a file in another folder"
        )
    if path.is_dir():
        raise InputError(f"`{field}` {path}: is a folder; name a file")
    if is_special(path):
        raise InputError(f"`{field}` {path}: {_SPECIAL}; name a file")
    if path.exists() and any(other.exists() and path.samefile(other) for other in inputs):
        raise InputError(f"`{field}` {path}: is an input, which would be lost; name another file")


def remove_temporary_files(folder: Path) -> None:
    """Remove temporary files that a killed ``write_atomic`` left in the folder.

    After a restart a process may have the number of the one that was killed.
    """
    for temporary in folder.glob(".*.tmp"):
        number = temporary.name.split(".")[-2]
        other = number.isdecimal() and int(number) != os.getpid()
        if not (other and _is_alive(int(number))):
            temporary.unlink(missing_ok=True)
