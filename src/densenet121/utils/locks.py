"""One process at a time writes into a folder."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from densenet121.utils.errors import InputError
from densenet121.utils.files import remove_temporary_files

try:
    import fcntl
except ImportError:  # Windows: there is no lock
    fcntl = None  # type: ignore[assignment]

_LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path, field: str) -> Iterator[Callable[[], None]]:
    """Keep other processes out of ``folder``, which exists; the system ends it with this process.

    The value of the context is a check before writing: it raises an InputError where the folder was
    removed and another process has begun in a new one of its name, or has ended there.

    Temporary files that killed processes left in it are removed: only now is no other host writing.
    Where the file system has no locks, nothing is kept out.

    Args:
        folder: the folder.
        field: the setting that names it.

    Raises:
        InputError: another process has it.
    """
    file = folder / _LOCK
    lock = _open(file, field)
    begun = folder.stat()

    def check() -> None:
        if lock is not None and (owner := _other_owner(file, begun)):
            raise InputError(
                f"`{field}` {folder}: was removed while this process ran, and {owner} has written "
                "a new one; nothing more is written there"
            )

    try:
        remove_temporary_files(folder)
        yield check
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):
                if not _other_owner(file, begun):
                    file.unlink()
            os.close(lock)


def _text() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _other_owner(file: Path, begun: os.stat_result) -> str:
    """Who has the folder of a lock that this process holds; "" if it is this one.

    Some file systems change the numbers of files, so these count only where the lock is gone.

    Args:
        file: the lock.
        begun: of the folder, when it was locked.
    """
    try:
        holder = file.read_text(errors="replace")
        return "" if holder in ("", _text()) else holder  # a full disk: it has no text
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            return "" if os.path.samestat(file.parent.stat(), begun) else "another process"
        return ""  # the folder is gone: what is written next says so
    except OSError:
        return ""


def _open(file: Path, field: str) -> int | None:
    """The locked file; None where it cannot be locked."""
    while fcntl is not None:
        try:
            lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), file.stat()):
                with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
                    os.ftruncate(lock, 0)
                    os.write(lock, _text().encode())
                return lock
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode(errors="replace") or "another process"
            os.close(lock)
            raise InputError(
                f"`{field}` {file.parent}: {holder} writes into it; wait until it has ended, or "
                "choose another folder"
            ) from None
        except FileNotFoundError:
            pass
        except OSError:  # no locks here
            os.close(lock)
            with contextlib.suppress(OSError):
                file.unlink()
            return None
        os.close(lock)  # its owner has just ended, and removed it
    return None
