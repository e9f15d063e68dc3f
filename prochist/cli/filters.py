"""The filters of ``query`` as options, for every command that asks for lives.

One row of a table is one option; ``make_question`` makes of their values what ``ask/`` understands.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from prochist.ask.completeness import Verdict, judge
from prochist.ask.filters import Question, find_boots, find_lives
from prochist.ask.signals import parse_signal
from prochist.cli.options import Times, duration_option, integer, time_option
from prochist.clock import EpochNs

if TYPE_CHECKING:
    import apsw

_TIMES = (
    ("-S", "--since", "Alive at T or later."),
    ("-U", "--until", "Alive at T or earlier."),
    ("", "--exited-since", "Ended at T or later."),
    ("", "--exited-until", "Ended at T or earlier."),
    ("", "--started-since", "Began at T or later."),
    ("", "--started-until", "Began at T or earlier."),
    ("", "--alive-at", "Alive at that instant, exactly."),
)
_MANY = (
    ("-p", "--pid", "PID", "With this process id."),
    ("", "--ppid", "PID", "Forked by a process with this id."),
    ("", "--id", "ID", "With this id: the column id, which names one life for ever."),
    ("-c", "--comm", "GLOB", "Whose name (as in ps -o comm) matches."),
    ("-x", "--exe", "GLOB", "Whose executable matches; without a slash, its base name."),
    ("-g", "--grep", "RE", "With a match in the command line; (?i) in front ignores case."),
    ("", "--user", "USER", "Of this user: name or uid."),
    ("", "--login-user", "USER", "Begun in a login of this user: name or uid (loginuid)."),
    ("-u", "--unit", "UNIT", "Of this systemd unit, or a glob; ssh means ssh.service."),
    ("", "--container", "ID", "In the container whose id begins so."),
    ("", "--tty", "TTY", "On this controlling terminal: pts/0."),
    ("", "--session", "N", "In this audit session."),
    ("", "--exit", "N", "That exited with this status."),
    ("", "--signal", "SIGNAL", "Killed by this signal: name or number."),
    (
        "",
        "--descendants-of",
        "ID|PID",
        (
            "That descend from this process. A number is a pid (of all lives that had it), or an "
            "id where no life had that pid; id:N and pid:N leave no doubt."
        ),
    ),
    ("", "--ancestors-of", "ID|PID", "That this process descends from; numbers as above."),
)
_FLAGS = (
    ("--running", "Without an end."),
    ("--exited", "With an end."),
    ("--failed", "Ended with a status other than 0, or by a signal."),
    ("--kernel-threads", "Kernel threads too; otherwise only those named by --id or --pid."),
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add every filter to a command: one row of the tables above each."""
    options = [time_option(*filter(None, (short, long)), text=text) for short, long, text in _TIMES]
    options.append(
        click.option(
            "-b",
            "--boot",
            is_flag=False,
            flag_value="0",
            multiple=True,
            metavar="[ID|-N]",
            help="Of this boot: -1 is the one before the newest. No value: the newest.",
        )
    )
    options += [click.option(name, is_flag=True, help=text) for name, text in _FLAGS]
    options += [
        click.option(*filter(None, (short, long)), multiple=True, metavar=metavar, help=text)
        for short, long, metavar, text in _MANY
    ]
    options += [
        duration_option("--min-duration", text="That lived at least so long, or do so far."),
        duration_option("--max-duration", text="That lived at most so long, or do so far."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class AskingCommand(click.Command):
    """Lets ``-b -1`` mean what it means to journalctl.

    Click takes what begins with a hyphen for another option wherever a value may be
    left out, ``--boot=-1`` included. A space before it prevents that, and means nothing.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join ``-b`` and a negative number to one argument, and parse."""
        joined: list[str] = []
        for argument in args:
            before = joined[-1] if joined else ""
            option, _, number = argument.rpartition("-")
            if before in ("-b", "--boot") and not option and number.isdigit():
                joined[-1] = f"--boot= -{number}"
            elif option in ("-b", "--boot=") and number.isdigit():
                joined.append(f"--boot= -{number}")
            else:
                joined.append(argument)
        return super().parse_args(ctx, joined)


def make_question(db: "apsw.Connection", times: Times, options: dict[str, Any]) -> Question:
    """Turn options into a question.

    Raises:
        UsageError: a value is not what its option takes.
    """

    def numbers(name: str, what: str, most: int = (1 << 63) - 1) -> tuple[int, ...]:
        return tuple(integer(text, what, most=most) for text in options[name])

    def kin(name: str) -> tuple[int, ...] | None:
        texts = options[name]
        return tuple(id_ for t in texts for id_ in find_lives(db, t)) if texts else None

    boots = options["boot"]
    return Question(
        now_ns=times.now_ns,
        since_ns=times.parse(options["since"]),
        until_ns=times.parse(options["until"]),
        exited_since_ns=times.parse(options["exited_since"]),
        exited_until_ns=times.parse(options["exited_until"]),
        started_since_ns=times.parse(options["started_since"]),
        started_until_ns=times.parse(options["started_until"]),
        alive_at_ns=times.parse(options["alive_at"]),
        boots=tuple(id_ for t in boots for id_ in find_boots(db, t)) if boots else None,
        running=options["running"],
        exited=options["exited"],
        failed=options["failed"],
        kernel_threads=options["kernel_threads"],
        ids=numbers("id", "an id"),
        pids=numbers("pid", "a pid"),
        ppids=numbers("ppid", "a pid"),
        comms=options["comm"],
        exes=options["exe"],
        greps=options["grep"],
        users=options["user"],
        login_users=options["login_user"],
        units=options["unit"],
        containers=options["container"],
        ttys=options["tty"],
        sessions=numbers("session", "an audit session"),
        exit_codes=numbers("exit", "an exit status", most=255),
        signals=tuple(map(parse_signal, options["signal"])),
        min_duration_ns=options["min_duration"],
        max_duration_ns=options["max_duration"],
        descendants_of=kin("descendants_of"),
        ancestors_of=kin("ancestors_of"),
    )


def judge_window(
    db: "apsw.Connection", question: Question, *, recording: bool, reach_ns: int | None = None
) -> Verdict:
    """Judge the window that was asked for, or the part of it that the limit left."""
    since_ns, until_ns = question.window
    if reach_ns is not None and (since_ns is None or reach_ns > since_ns):
        since_ns = EpochNs(reach_ns)
    return judge(db, since_ns, until_ns, now_ns=question.now_ns, recording=recording)
