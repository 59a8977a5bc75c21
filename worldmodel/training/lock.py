"""One run at a time in a run folder: a lock of the kernel's, which the death of its holder frees."""

from __future__ import annotations

import errno
import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lightning.fabric import Fabric

from worldmodel.errors import UserError

_NAME = "lock"
_UNKNOWN = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process is. A folder in which nothing is left is removed.

    Raises:
        UserError: another process is inside, or the folder cannot be written.
    """
    descriptor = _lock(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / _NAME).unlink()  # who has opened it meanwhile sees that it is gone
            folder.rmdir()  # which fails where there is more
        os.close(descriptor)


@contextmanager
def locked_by_first(fabric: Fabric, folder: Path) -> Iterator[None]:
    """``locked`` for all ranks of a run, which enter together: the first holds the lock, and all get its complaint.

    Raises:
        UserError: another run is inside, or the folder cannot be written.
    """
    with ExitStack() as stack:
        complaint = None
        if fabric.is_global_zero:
            try:
                stack.enter_context(locked(folder))
            except UserError as error:
                complaint = str(error)
        if complaint := fabric.broadcast(complaint):
            raise UserError(complaint)
        yield


def _lock(folder: Path) -> int:
    """A descriptor that holds the lock until it is closed."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue  # the one before has just removed it
        except OSError as cause:
            raise UserError(f"cannot write to {folder} ({cause.strerror}): use another run folder") from cause
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(folder / _NAME)):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError as cause:
            os.close(descriptor)
            raise UserError(f"{folder} is in use by another process that trains in it: wait, or use another") from cause
        except OSError as cause:
            if cause.errno in _UNKNOWN:
                warnings.warn(f"{folder} cannot be locked here: let no other process train in it", stacklevel=3)
                return descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)
