"""The service as it is installed, under a systemd of our own, on a host that systemd does not run.

A user manager, which need not be process 1, in a mount namespace with a /run of its own and in
cgroups of its own; it is root's, so that the unit's user, capabilities and sandbox are in force.
What differs from an installed service is in the drop-in below, each line with its reason.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from tests.kernel.live import PATIENCE_S, History

pytestmark = pytest.mark.kernel

CHECKOUT = Path(__file__).resolve().parent.parent.parent
UNIT = CHECKOUT / "contrib/prochist.service"
NOBODY = 65534
HIERARCHIES = [
    Path(place) for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
]
# What process 1 makes for all service managers: a /run of systemd, and what hides files.
PREPARE = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/systemd/inaccessible/dir
cd /run/systemd/inaccessible
: > reg; mkfifo fifo; mknod chr c 0 0; mknod blk b 0 0; chmod 0 *
cd /
manager=$1; shift
for group; do echo $$ > "$group/cgroup.procs"; done
exec "$manager" --user --log-target=console
"""
DROP_IN = """
[Unit]
ConditionVirtualization=
[Service]
# This Python and this checkout, wherever they are, and not what may be installed.
ExecStart=
ExecStart={python} -m prochist record --db %S/prochist/prochist.db
ProtectHome=tmpfs
BindReadOnlyPaths={visible}
# A user that is there on every host.
User={nobody}
Group={nobody}
# Sooner, for a test.
WatchdogSec=4
RestartSec=100ms
LimitCORE=0
"""


def find_manager() -> str | None:
    places = ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")
    return next((place for place in places if os.access(place, os.X_OK)), None)


def what_is_missing() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    if find_manager() is None or not shutil.which("systemctl") or not shutil.which("unshare"):
        return "no systemd on this machine"
    if Path("/run/systemd/system").exists():
        return "systemd runs this host: its own cgroups are left alone"
    if not any(os.access(place / "cgroup.procs", os.W_OK) for place in HIERARCHIES):
        return "no cgroups that can be written"
    return None


class UserManager:
    """A systemd with one unit: ours. Everything that it needs is in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.database = folder / "state/prochist/prochist.db"
        self._environment = {
            **os.environ,
            "XDG_RUNTIME_DIR": str(folder / "run"),
            "XDG_CONFIG_HOME": str(folder / "state"),  # %S before systemd 254
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self._groups: list[Path] = []

    def _write_units(self) -> None:
        units = self._folder / "state/systemd/user"
        (units / "prochist.service.d").mkdir(parents=True)
        shutil.copy(UNIT, units)
        visible = sorted({sys.prefix, sys.base_prefix, str(CHECKOUT)})
        text = DROP_IN.format(
            python=Path(sys.prefix) / "bin/python", visible=" ".join(visible), nobody=NOBODY
        )
        (units / "prochist.service.d/test.conf").write_text(text)
        (units / "default.target").write_text("[Unit]\nDescription=nothing else\n")

    def __enter__(self) -> Self:
        self._write_units()
        (self._folder / "run").mkdir()
        try:
            for place in HIERARCHIES:
                if os.access(place / "cgroup.procs", os.W_OK):
                    group = place / self._folder.name
                    group.mkdir()
                    self._groups.append(group)
            with (self._folder / "log").open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        "unshare",
                        "-m",
                        "sh",
                        "-c",
                        PREPARE,
                        "sh",
                        str(find_manager()),
                        *self._groups,
                    ],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            told = self._folder / "run/systemd/notify"
            self.wait(lambda: told.exists() and (self._folder / "run/systemd/private").exists())
            told.chmod(
                0o777
            )  # that of process 1 is; a user's manager has only services of that user
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything, and leave the cgroups as they were."""
        process = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            self.systemctl("stop", "prochist")
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        for group in self._groups:
            for procs in group.rglob("cgroup.procs"):
                for pid in procs.read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
        if process is not None:
            process.wait(10)
        for group in self._groups:
            for folder in sorted((p.parent for p in group.rglob("cgroup.procs")), reverse=True):
                self.wait(partial(_removed, folder))

    @staticmethod
    def wait(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        until = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.05)

    def systemctl(self, *arguments: str) -> str:
        done = subprocess.run(
            ["systemctl", "--user", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout + done.stderr

    def show(self, name: str) -> str:
        return self.systemctl("show", "-P", name, "prochist").strip()

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    def wait_for_restart(self, count: int) -> None:
        self.wait(
            lambda: self.show("NRestarts") == str(count) and self.show("ActiveState") == "active"
        )


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


@pytest.fixture
def manager() -> Iterator[UserManager]:
    missing = what_is_missing()
    if missing is not None:
        pytest.skip(missing)
    # Not in /tmp or a home: the unit does not see these.
    with tempfile.TemporaryDirectory(prefix="prochist-test-", dir="/var/lib") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with UserManager(folder) as manager:
            yield manager


class Runs:
    """Programs that are run all the time, each with a number."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._stop = threading.Event()
        self.count = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            subprocess.run(["/bin/true", f"{self._mark}{self.count}"], check=True)
            self.count += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_the_unit_starts_is_shut_in_and_loses_nothing_however_it_is_restarted(
    manager: UserManager,
) -> None:
    assert not manager.systemctl("start", "prochist"), manager.systemctl("status", "prochist")
    assert manager.show("ActiveState") == "active"
    assert manager.show("StatusText") == f"recording into {manager.database}"
    status = Path(f"/proc/{manager.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert set(fields["Uid"].split()) == {str(NOBODY)}
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"

    with Runs(f"{os.getpid()}-under-systemd-") as runs:
        time.sleep(0.3)
        assert not manager.systemctl("restart", "prochist")
        assert int(manager.show("NFileDescriptorStore")) >= 2
        time.sleep(0.3)
        os.kill(manager.pid, signal.SIGKILL)
        manager.wait_for_restart(1)
        time.sleep(0.3)
        os.kill(manager.pid, signal.SIGSTOP)  # alive and deaf: the watchdog sees to it
        manager.wait_for_restart(2)
        time.sleep(0.3)
    time.sleep(1)
    manager.systemctl("stop", "prochist")
    assert manager.show("ActiveState") == "inactive"
    assert manager.show("Result") == "success"
    assert manager.show("NFileDescriptorStore") == "0"

    with History(manager.database) as history:
        assert history.ask("SELECT * FROM gap") == []
        (row,) = history.ask("SELECT count(*) AS recordings FROM recording")
        assert row == {"recordings": 4}
        rows = history.ask(
            "SELECT DISTINCT json_extract(argv, '$[1]') AS argument FROM execs"
            " WHERE argv GLOB '*-under-systemd-*' AND source = 'bpf'"
        )
        assert runs.count > 100
        assert {row["argument"] for row in rows} == {
            f"{os.getpid()}-under-systemd-{number}" for number in range(runs.count)
        }
