"""Installation: the service that runs the recorder, put in place and taken away.

A plan is a list of steps, each with a sentence that says what and why; it is
made first, so that ``--dry-run`` shows exactly what would be done.
"""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prochist.errors import ProchistError

UNIT = "prochist.service"
PROGRAM_IN_FILE = "/usr/bin/prochist"
"""What stands in contrib/prochist.service, for a package of a distribution."""


class Step(NamedTuple):
    """One thing to do, and why."""

    what: str
    why: str
    do: Callable[[], None]


class Places(NamedTuple):
    """Where things go, below ``root``."""

    root: Path = Path("/")

    @property
    def unit(self) -> Path:
        """The unit of the administrator."""
        return self.root / "etc/systemd/system" / UNIT

    @property
    def sysusers(self) -> Path:
        """The description of the user."""
        return self.root / "etc/sysusers.d/prochist.conf"

    @property
    def configuration(self) -> Path:
        """The options of the recorder."""
        return self.root / "etc/prochist.toml"


Run = Callable[[list[str]], None]


def run_command(command: list[str]) -> None:
    """Run a program of the system.

    Raises:
        ProchistError: it is not there, or ends with an error.

    """
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        message = f"cannot run {command[0]}: {error.strerror}"
        raise ProchistError(message, hint="this needs systemd") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        message = f"{' '.join(command)} ended with {done.returncode}"
        raise ProchistError(message, hint=said[-1] if said else None)


def shipped(name: str) -> str:
    """Return the text of a file of contrib/, from the wheel or from the checkout."""
    package = Path(__file__).parent.parent
    folder = next(p for p in (package / "contrib", package.parent / "contrib") if p.is_dir())
    return (folder / name).read_text(encoding="utf-8")


def find_program(executable: str = sys.executable) -> list[str]:
    """Return how systemd has to start the prochist that is running now.

    Raises:
        ProchistError: it lies where the service's user cannot reach it.

    """
    python = Path(executable).absolute()
    for place in {*python.parents, *python.resolve().parents}:
        mode = place.stat().st_mode
        if not mode & stat.S_IXOTH or place in (Path("/home"), Path("/root"), Path("/run/user")):
            message = f"{python} cannot be reached by the user of the service, because of {place}"
            raise ProchistError(
                message,
                hint="install for everybody: sudo pipx install --global prochist, or"
                " python3 -m venv /opt/prochist && /opt/prochist/bin/pip install prochist",
            )
    script = python.with_name("prochist")
    return [str(script)] if script.exists() else [str(python), "-I", "-m", "prochist"]


def plan_installation(
    program: list[str], places: Places | None = None, run: Run = run_command
) -> list[Step]:
    """Return the steps that install and start the service."""
    where = places or Places()
    start = " ".join(program)
    unit = shipped(UNIT).replace(f"ExecStart={PROGRAM_IN_FILE} ", f"ExecStart={start} ")
    steps = [
        Step(
            f"write {where.sysusers}",
            "the recorder runs as a user of its own, `prochist`; members of its group may read the"
            " history",
            partial(_write, where.sysusers, shipped("prochist.sysusers.conf")),
        ),
        Step(
            f"run systemd-sysusers {where.sysusers}",
            "makes that user and group, if they are not there",
            partial(run, ["systemd-sysusers", str(where.sysusers)]),
        ),
        Step(
            f"write {where.unit}",
            f"starts {start} at boot, restarts it without a gap, and gives it six capabilities"
            " instead of root",
            partial(_write, where.unit, unit),
        ),
    ]
    if not where.configuration.exists():
        steps.append(
            Step(
                f"write {where.configuration}",
                "the place for --keep, --max-size and --redact; all of it is commented out",
                partial(_write, where.configuration, shipped("prochist.toml")),
            )
        )
    return [
        *steps,
        Step(
            "run systemctl daemon-reload",
            "systemd reads the unit",
            partial(run, ["systemctl", "daemon-reload"]),
        ),
        Step(
            f"run systemctl enable --now {UNIT}",
            "begins to record now, and at every boot",
            partial(run, ["systemctl", "enable", "--now", UNIT]),
        ),
    ]


def plan_removal(places: Places | None = None, run: Run = run_command) -> list[Step]:
    """Return the steps that stop and remove the service; the history stays."""
    where = places or Places()
    steps = []
    if where.unit.exists():
        steps += [
            Step(
                f"run systemctl disable --now {UNIT}",
                "stops recording, with everything committed",
                partial(run, ["systemctl", "disable", "--now", UNIT]),
            ),
            Step(f"remove {where.unit}", "the unit", where.unit.unlink),
            Step(
                "run systemctl daemon-reload",
                "systemd forgets the unit",
                partial(run, ["systemctl", "daemon-reload"]),
            ),
        ]
    if where.sysusers.exists():
        steps.append(Step(f"remove {where.sysusers}", "the description", where.sysusers.unlink))
    return steps


LEFT_BEHIND = (
    "the history in /var/lib/prochist, /etc/prochist.toml and the user prochist stay; to"
    " remove them as well: rm -r /var/lib/prochist /etc/prochist.toml; userdel prochist"
)


def refuse_unless_root() -> None:
    """Refuse to change the system as an ordinary user.

    Raises:
        ProchistError: not root.

    """
    if os.geteuid() != 0:
        raise ProchistError(
            "only root can change services", hint="use sudo, or look first with --dry-run"
        )


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(text, encoding="utf-8")
        new.chmod(0o644)
        new.replace(path)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise ProchistError(message) from error


__all__ = [
    "LEFT_BEHIND", "Places", "Step", "find_program", "plan_installation", "plan_removal",
    "refuse_unless_root", "run_command", "shipped",
]  # fmt: skip
