"""Names of users and groups, without ever waiting for them.

The files /etc/passwd and /etc/group are read here. Numbers that are not in them may be
in a directory service (LDAP, SSSD, systemd-homed), which may take seconds or hang: that
question is put to a child process, ``getent``, and :meth:`Names.pump` collects the answer
when there is one. The recorder is never delayed, and one that has no answer yet shows no name.

It does not know which process a number was of.

Source: man pages passwd(5), group(5), getent(1).
"""

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

LOOKUP_TIMEOUT_S = 5.0
"""After this an answer is given up: what was known before stays, for as long as a negative one."""
KNOWN_FOR_S = 3600.0
UNKNOWN_FOR_S = 300.0
MOST_LOOKUPS = 4
"""Child processes at one time."""
MOST_CACHED = 10_000
"""Answers kept; above, the oldest go."""
CHECK_EVERY_S = 1.0
"""How often the file is looked at for a change."""
_LONGEST_ANSWER = 65536
_FEWEST_FIELDS = 3
_MOST_DIGITS = 10


class Names:
    """Tells the names of numbers from one database of the system.

    ``file`` has lines of fields with ``:`` between them, the name first and the number third;
    ``query`` is a command that prints such a line for the number that is its last argument.
    Close it, or use it in a ``with``.
    """

    def __init__(
        self,
        file: Path,
        query: tuple[str, ...],
        *,
        timeout_s: float = LOOKUP_TIMEOUT_S,
        most_cached: int = MOST_CACHED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file
        self._query = query
        self._timeout_s = timeout_s
        self._most_cached = most_cached
        self._mute_until_s = float("-inf")  # there is nobody to ask
        self._clock = clock
        self._stamp: tuple[int, int, int] | None = None
        self._checked_s = float("-inf")
        self._from_file: dict[int, str] = {}
        self._answers: dict[int, tuple[str | None, float]] = {}  # name, valid until
        self._waiting: dict[int, None] = {}  # an ordered set
        self._lookups: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._abandoned: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def name_of(self, number: int) -> str | None:
        """Return the name of a number, or None: it has none, or is not known yet. Does not wait."""
        now_s = self._clock()
        if now_s - self._checked_s >= CHECK_EVERY_S:
            self._checked_s = now_s
            self._read_file()
        name = self._from_file.get(number)
        if name is not None:
            return name
        answer, valid_until_s = self._answers.get(number, (None, float("-inf")))
        if now_s >= max(valid_until_s, self._mute_until_s) and number not in self._lookups:
            if len(self._waiting) < self._most_cached:
                self._waiting[number] = None
            self._start_lookups(now_s)
        return answer

    def is_pending(self) -> bool:
        """Tell whether an answer is still awaited: :meth:`pump` is then worth calling."""
        return bool(self._lookups or self._waiting)

    def pump(self) -> list[int]:
        """Collect the answers there are and return the numbers concerned. Does not wait."""
        now_s = self._clock()
        answered = []
        for number, (child, deadline_s) in list(self._lookups.items()):
            if child.poll() is not None:
                name = _read_name(child, number)
            elif now_s >= deadline_s:
                child.kill()
                self._abandoned.append(child)  # one that hangs in the kernel dies later
                name = None
            else:
                continue
            _close_output(child)
            is_given_up = self._lookups.pop(number)[0].returncode is None
            earlier, _ = self._answers.pop(number, (None, 0.0))
            lifetime_s = UNKNOWN_FOR_S if name is None else KNOWN_FOR_S
            self._answers[number] = (earlier if is_given_up else name, now_s + lifetime_s)
            answered.append(number)
        while len(self._answers) > self._most_cached:
            del self._answers[next(iter(self._answers))]
        self._abandoned = [child for child in self._abandoned if child.poll() is None]
        self._start_lookups(now_s)
        return answered

    def close(self) -> None:
        """End the child processes. What was answered stays known."""
        self._waiting.clear()
        children = [child for child, _ in self._lookups.values()]
        for child in children:
            child.kill()
            _close_output(child)
        self._lookups.clear()
        for child in children + self._abandoned:
            with suppress(subprocess.TimeoutExpired):
                child.wait(1.0)
        self._abandoned.clear()

    def _read_file(self) -> None:
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
            if stamp == self._stamp:
                return
            text = self._file.read_bytes()
        except OSError:
            return  # replaced at this moment, or not there: what was known stays
        self._stamp = stamp
        self._from_file = parse_names(text)

    def _start_lookups(self, now_s: float) -> None:
        while self._waiting and len(self._lookups) + len(self._abandoned) < MOST_LOOKUPS:
            number = next(iter(self._waiting))
            del self._waiting[number]
            try:
                child = subprocess.Popen(
                    [*self._query, str(number)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # a Ctrl-C for the recorder is not for it
                )
            except OSError:
                # No such program, or no room for a process: not a question of this number.
                self._mute_until_s = now_s + UNKNOWN_FOR_S
                self._waiting.clear()
                return
            assert child.stdout is not None  # noqa: S101  it is a PIPE
            os.set_blocking(child.stdout.fileno(), False)
            self._lookups[number] = (child, now_s + self._timeout_s)


def user_names() -> Names:
    """Return the names of users, as this system knows them."""
    return Names(Path("/etc/passwd"), ("getent", "passwd"))


def group_names() -> Names:
    """Return the names of groups, as this system knows them."""
    return Names(Path("/etc/group"), ("getent", "group"))


def parse_names(text: bytes) -> dict[int, str]:
    """Return the names by number; of several with one number the first counts, as for getpwuid(3).

    Lines that are not of the format are passed over, among them ``+`` and ``-`` of NIS.
    """
    names: dict[int, str] = {}
    for line in text.split(b"\n"):
        fields = line.split(b":")
        if len(fields) < _FEWEST_FIELDS or line.startswith((b"+", b"-", b":", b"#")):
            continue
        if fields[2].isdigit() and len(fields[2]) <= _MOST_DIGITS:
            names.setdefault(int(fields[2]), fields[0].decode("utf-8", "backslashreplace"))
    return names


def _read_name(child: subprocess.Popen[bytes], number: int) -> str | None:
    assert child.stdout is not None  # noqa: S101  it is a PIPE
    try:
        answer = os.read(child.stdout.fileno(), _LONGEST_ANSWER)
    except BlockingIOError:
        return None  # something that it started holds the pipe and has said nothing
    return parse_names(answer).get(number)


def _close_output(child: subprocess.Popen[bytes]) -> None:
    if child.stdout is not None:
        child.stdout.close()
