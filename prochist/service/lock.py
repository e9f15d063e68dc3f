"""The lock that keeps a second recorder off a database."""

import fcntl
import os
import time
from pathlib import Path

from prochist.errors import ProchistError


class DatabaseLock:
    """The lock that one recorder holds per database, on a file beside it."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            ProchistError: another recorder has it, or it cannot be made.

        """
        lock = f"{path}.lock"
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        except OSError as error:
            message = f"cannot lock {path}: {error.strerror}"
            raise ProchistError(message, hint=f"check the permissions of {path.parent}") from error
        self._fd = fd
        self._path = lock
        for _ in range(10):  # someone who asks for the status holds it for an instant
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.02)
                continue
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        message = f"another recorder (pid {holder}) is recording into {path}"
        raise ProchistError(message, hint="stop it, or record elsewhere with --db")

    def is_in_place(self) -> bool:
        """Return whether the file that we have locked is the one that others would lock."""
        try:
            return os.path.samestat(os.fstat(self._fd), Path(self._path).lstat())
        except OSError:
            return False

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._fd)
