"""What the benchmarks of recording share: a recorder, peers, storms, the cost of a process, tables.

Everything is started here, ended here by its own pid, and bounded in count and time. The connector
shows every process of the machine: only those that a benchmark started itself are looked at, by
the lifetime of their spawner or by a mark in their argv.

Figures are printed beside their bounds and never gate.
"""

import argparse
import array
import contextlib
import itertools
import os
import platform
import re
import secrets
import select
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
LONGEST_STORM_S = 900.0
PATIENCE_S = 60.0
CPUS = sorted(os.sched_getaffinity(0))

sys.path.append(str(CHECKOUT / "tests" / "capture"))
try:
    import apsw
    from tiny_elf import write_tiny_elf

    from prochist import __version__
    from prochist.capture.channel import STAGED_MESSAGES
    from prochist.capture.connector import (
        CPU_WORD,
        MESSAGE_SIZE,
        SEQ_WORD,
        WORDS,
        SlotReceiver,
        decode_messages,
        open_subscription,
        read_drops,
    )
    from prochist.capture.receiver import prefer_real_time
except ImportError as error:
    sys.exit(
        f"Error: {error}\nHint: run it with an environment that has prochist, such as the one that"
        f" contrib/run makes: {CHECKOUT}.venv/bin/python {' '.join(sys.argv)}"
    )

EPILOGUE = """\
Needs root, a C compiler, and an environment in which prochist can be imported, such as the one
that contrib/run makes next to the checkout: CHECKOUT.venv/bin/python contrib/bench/NAME.
Only processes that it started itself are looked at and ended; what it writes is in a temporary
directory that it removes.
"""


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help says what all benchmarks need."""
    return argparse.ArgumentParser(
        description=description,
        epilog=EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


# --- the machine ----------------------------------------------------------------


def package_version(program: str) -> str | None:
    """Return the version of a Debian package, or None when the program is not there."""
    if shutil.which(program) is None:
        return None
    with contextlib.suppress(OSError):
        said = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", program],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        return said.stdout or "of unknown version"
    return "of unknown version"


def print_machine(peers: Sequence[str] = ()) -> None:
    """Print the machine and the versions of all that is measured."""
    model = "unknown processor"
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        model = found[1] if found else model
    print(f"{model}, {len(CPUS)} CPUs; Linux {platform.release()} {platform.machine()}")
    print(
        f"prochist {__version__}, Python {platform.python_version()},"
        f" SQLite {apsw.sqlite_lib_version()}"
    )
    for peer in peers:
        version = package_version(peer)
        print(f"{peer} {version}" if version else f"{peer} is not installed: left out")
    print(f"load before: {' '.join(f'{load:.2f}' for load in os.getloadavg())}\n", flush=True)


# --- tables -----------------------------------------------------------------------


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    texts = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    print(title)
    for row in texts:
        first, *rest = (
            text.ljust(width) if not at else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  " + "  ".join([first, *rest]).rstrip())
    print(flush=True)


def verdict(*, kept: bool) -> str:
    """Say whether a figure is within its bound."""
    return "ok" if kept else "MISSED"


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


# --- what a process costs -----------------------------------------------------------


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process so far, all of its threads that live, in ns.

    Source: proc_pid_schedstat() in fs/proc/base.c, first field.
    """
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_bytes().split()[0])
    return total


class Memory(NamedTuple):
    """What a process has in memory, in KiB."""

    rss: int
    """Resident, with what it shares."""
    pss: int
    """Resident, what is shared divided by those who share it."""


def memory(pid: int) -> Memory:
    """Read what a process has in memory.

    Source: man page proc_pid_smaps(5), smaps_rollup.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE))
    return Memory(int(fields["Rss"]), int(fields["Pss"]))


# --- storms -------------------------------------------------------------------------


class Storm(NamedTuple):
    """A storm that is over."""

    pid: int
    since_ns: int
    """Wall time at which it was about to be started."""
    made: int
    seconds: float
    cpu_s: float
    """CPU time of the spawner and of all that it started."""


class Bench:
    """A temporary directory, the programs in it, and everything that was started."""

    def __init__(self, folder: Path | None = None) -> None:
        self._undo = contextlib.ExitStack()
        self._parent = folder
        self._children: list[subprocess.Popen[Any]] = []
        self._since_ns: dict[int, int] = {}
        self._marks = itertools.count()

    def __enter__(self) -> Self:
        # Whoever ends a benchmark early leaves nothing behind; a shell's background ignores SIGINT.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        with contextlib.ExitStack() as undo:
            name = undo.enter_context(
                tempfile.TemporaryDirectory(prefix="prochist-bench-", dir=self._parent)
            )
            self.folder = Path(name)
            undo.callback(self._end_all)
            self.storm = self.folder / "storm"
            compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
            if compiler is None:
                sys.exit("Error: no C compiler\nHint: apt-get install gcc libc6-dev")
            subprocess.run(
                [compiler, "-O2", "-pthread", "-o", self.storm, HERE / "storm.c"], check=True
            )
            self.tiny = write_tiny_elf(self.folder / "tiny")
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def _end_all(self) -> None:
        for child in self._children:
            end(child)

    def start(self, command: Sequence[str | Path], **options: Any) -> "subprocess.Popen[Any]":  # noqa: ANN401
        """Start a program that is ended at the latest with the benchmark."""
        since_ns = time.time_ns()
        child = subprocess.Popen(command, **options)
        self._since_ns[child.pid] = since_ns
        self._children = [c for c in self._children if c.poll() is None] + [child]
        return child

    def mark(self) -> str:
        """Return a text for argv that nobody else uses."""
        return f"prochist-{secrets.token_hex(4)}-{next(self._marks)}-"

    def start_storm(
        self, *arguments: str | float | Path, prefix: Sequence[str] = (), cpu: int | None = None
    ) -> "subprocess.Popen[str]":
        """Start one spawner, bound to a CPU if one is given."""
        return self.start(
            [*prefix, str(self.storm), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            preexec_fn=None if cpu is None else lambda: os.sched_setaffinity(0, {cpu}),
        )

    def wait_storms(self, spawners: Sequence["subprocess.Popen[str]"]) -> list[Storm]:
        """Wait for spawners and return what they say."""
        storms = []
        for spawner in spawners:
            said, _ = spawner.communicate(timeout=LONGEST_STORM_S)
            if spawner.returncode:
                sys.exit(f"Error: a storm ended with status {spawner.returncode}")
            _, count, taken_ns, cpu_us = said.split()
            storms.append(
                Storm(
                    spawner.pid,
                    self._since_ns[spawner.pid],
                    int(count),
                    int(taken_ns) / 1e9,
                    int(cpu_us) / 1e6,
                )
            )
        return storms

    def storms(self, *all_arguments: Sequence[str | float | Path]) -> list[Storm]:
        """Run spawners side by side and return what they say."""
        return self.wait_storms([self.start_storm(*arguments) for arguments in all_arguments])

    @contextlib.contextmanager
    def hogs(self, count: int = 2) -> Iterator[None]:
        """Keep CPUs busy at ordinary priority for as long as the block runs."""
        program = (
            "import time\n"
            f"end = time.monotonic() + {LONGEST_STORM_S}\n"
            "while time.monotonic() < end: pass"
        )
        busy = [self.start([sys.executable, "-I", "-S", "-c", program]) for _ in range(count)]
        try:
            yield
        finally:
            for hog in busy:
                end(hog)


def end(
    child: "subprocess.Popen[Any]", number: int = signal.SIGTERM, patience_s: float = 15
) -> int:
    """End a program that we started, kindly at first; return its status."""
    if child.poll() is None:
        child.send_signal(number)
        child.send_signal(signal.SIGCONT)
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    return int(child.returncode)


def wait_until(is_so: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait until something is so, or end with an error that names it."""
    until = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > until:
            sys.exit(f"Error: {what}: not after {patience_s:g} s")
        time.sleep(0.02)


# --- the recorder ---------------------------------------------------------------------


class Recording:
    """A `prochist record` that runs, and the database it writes."""

    def __init__(self, bench: Bench, *options: str | Path, name: str | None = None) -> None:
        self.database = bench.folder / f"{name or secrets.token_hex(4)}.db"
        self._log = self.database.with_suffix(".log")
        with self._log.open("wb") as log:
            self.process = bench.start(
                [sys.executable, "-m", "prochist", "record", "--db", self.database, *options],
                stdin=subprocess.DEVNULL,
                stderr=log,
                cwd=CHECKOUT,
            )
        self.pid = self.process.pid
        self._db: sqlite3.Connection | None = None

    @property
    def said(self) -> str:
        """What it said on stderr so far."""
        return self._log.read_text(encoding="utf-8")

    def __enter__(self) -> Self:
        def is_ready() -> bool:
            if self.process.poll() is not None:
                sys.exit(f"Error: the recorder ended:\n{self.said}")
            return "already running; recording" in self.said

        wait_until(is_ready, "the recorder is ready")
        self._db = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)
        self.receiver_pid = self._find_receiver()
        return self

    def __exit__(self, *_: object) -> None:
        if self._db is not None:
            self._db.close()
        end(self.process)

    def _find_receiver(self) -> int:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for child in map(int, children):
            if b"prochist.capture.receiver" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        sys.exit("Error: the recorder has no receiver")

    def ask(self, statement: str, *bindings: object) -> list[tuple[Any, ...]]:
        """Ask the database, as a user of sqlite3 would."""
        if self._db is None:
            sys.exit("Error: the recording has not begun")
        return self._db.execute(statement, bindings).fetchall()

    def settle(self) -> None:
        """Wait until everything that has happened so far is committed."""
        now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)

        def is_committed() -> bool:
            if self.process.poll() is not None:
                sys.exit(f"Error: the recorder ended:\n{self.said}")
            ((at_ns,),) = self.ask("SELECT max(committed_mono_ns) FROM recording")
            return int(at_ns) >= now_ns

        # A commit says what was complete when it began: make an event that asks for one.
        until = time.monotonic() + 4 * PATIENCE_S
        while not is_committed():
            if time.monotonic() > until:
                sys.exit("Error: the recorder does not come to rest")
            subprocess.run(["/bin/true"], check=True)
            time.sleep(0.3)

    def stop(self) -> str:
        """Stop it and return the last thing it said."""
        status = end(self.process, patience_s=PATIENCE_S)
        if status:
            sys.exit(f"Error: the recorder ended with status {status}:\n{self.said}")
        return self.said.rstrip().splitlines()[-1].removeprefix("prochist: ")

    def lost(self, source: str = "*") -> int:
        """Return how many events of a source were lost while it recorded, by its gaps."""
        ((lost,),) = self.ask(
            "SELECT coalesce(sum(lost), 0) FROM gaps WHERE kind = 'overrun' AND detail GLOB ?",
            source,
        )
        return int(lost)

    def drops(self) -> int:
        """Return the connector socket's own drop counter, as of the newest commit."""
        ((drops,),) = self.ask(
            "SELECT json_extract(facts, '$.connector_drops') FROM recording ORDER BY id DESC"
        )[:1]
        return int(drops)

    def life_of(self, pid: int, since_ns: int) -> int:
        """Return the id of the lifetime of a process that we started then.

        In a storm every pid is used again within seconds, also that of a spawner that has ended.
        """
        rows = self.ask(
            "SELECT id FROM processes WHERE pid = ? AND ppid = ? AND started_at_ns >= ?"
            " ORDER BY id LIMIT 1",
            pid,
            os.getpid(),
            since_ns,
        )
        if not rows:
            sys.exit(f"Error: a spawner (pid {pid}) is not in the database")
        return int(rows[0][0])


def children(recording: Recording, storms: Iterable[Storm], where: str = "true") -> int:
    """Count the recorded children of the spawners; ``where`` is a constant condition."""
    return sum(
        recording.ask(
            f"SELECT count(*) FROM processes WHERE parent_id = ? AND {where}",  # noqa: S608
            recording.life_of(storm.pid, storm.since_ns),
        )[0][0]
        for storm in storms
    )


def described(recording: Recording, program: Path, marks: Sequence[str], count: int) -> int:
    """Count those of ``count`` runs for each mark whose whole argv was recorded."""
    wanted = {f"{program} {mark}{number}" for mark in marks for number in range(count)}
    found = recording.ask(
        "SELECT command_line FROM execs WHERE command_line GLOB ?", f"{program} prochist-*"
    )
    return len(wanted & {line for (line,) in found})


# --- a listener of our own ----------------------------------------------------------------


class Heard(NamedTuple):
    """What the second listener has heard."""

    events: dict[int, set[int]]
    """Sequence numbers by CPU."""
    drops: int


def _listen(path: Path) -> None:
    """Note CPU and sequence number of every event until standard input ends; then the drops."""
    subscription = open_subscription(256 * 1024 * 1024)
    staging = memoryview(bytearray(STAGED_MESSAGES * MESSAGE_SIZE))
    words = staging.cast("I")
    slots = SlotReceiver(subscription.socket.fileno(), staging, MESSAGE_SIZE)
    prefer_real_time()
    numbers = array.array("I")
    for message in decode_messages(subscription.received):
        numbers.extend((message.cpu, message.seq))
    poller = select.poll()
    poller.register(subscription.socket, select.POLLIN)
    poller.register(0, 0)
    print("listening", flush=True)
    stopping = False
    while True:
        count = slots.receive()
        if not count:
            if stopping:
                break
            stopping = any(fd == 0 for fd, _ in poller.poll(1000))
            continue
        pairs = array.array("I", bytes(8 * count))
        end_word = WORDS * count
        pairs[0::2] = array.array("I", words[CPU_WORD:end_word:WORDS].tolist())
        pairs[1::2] = array.array("I", words[SEQ_WORD:end_word:WORDS].tolist())
        numbers += pairs
        if count < STAGED_MESSAGES // 4:
            time.sleep(0.002)
    numbers.extend((0, read_drops(subscription.socket)))
    path.write_bytes(numbers.tobytes())


class Listener:
    """A second listener on the connector with a large buffer, that only counts."""

    def __init__(self, bench: Bench) -> None:
        self._path = bench.folder / f"{secrets.token_hex(4)}.heard"
        self.process = bench.start(
            [sys.executable, Path(__file__), "listen", self._path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if not self.process.stdout or self.process.stdout.readline() != b"listening\n":
            sys.exit("Error: the second listener does not listen")

    def stop(self) -> Heard:
        """Stop listening and return what was heard."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        numbers = array.array("I", self._path.read_bytes())
        drops = numbers.pop()
        numbers.pop()
        events: dict[int, set[int]] = {}
        for cpu, seq in zip(numbers[0::2], numbers[1::2], strict=True):
            events.setdefault(cpu, set()).add(seq)
        return Heard(events, drops)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "listen":  # noqa: PLR2004
        sys.exit("Error: this is a module of the benchmarks beside it\nHint: run one of them")
    _listen(Path(sys.argv[2]))
