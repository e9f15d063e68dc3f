"""Names of signals, as the view ``processes`` spells them.

Fixed and not taken from the running system: a history may come from another one.

Source: man page signal(7), x86 and ARM; RTMIN as glibc counts it.
"""

from prochist.errors import UsageError

_CLASSIC = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT "
    "CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
_SMALLEST_REALTIME, _HIGHEST = 34, 64

NAMES: dict[int, str] = {number: f"SIG{name}" for number, name in enumerate(_CLASSIC.split(), 1)}
"""Number to name; those that have none (32, 33 and what wait(2) never shows) are SIGN."""
NAMES |= {number: f"SIG{number}" for number in range(1, 128) if number not in NAMES}
NAMES |= {
    number: f"SIGRTMIN+{number - _SMALLEST_REALTIME}"
    for number in range(_SMALLEST_REALTIME + 1, _HIGHEST)
}
NAMES |= {_SMALLEST_REALTIME: "SIGRTMIN", _HIGHEST: "SIGRTMAX"}

_NUMBERS = {name: number for number, name in NAMES.items()} | {
    "SIGIOT": 6,
    "SIGCLD": 17,
    "SIGPOLL": 29,
}


def parse_signal(text: str) -> int:
    """Return the number that ``9``, ``KILL``, ``SIGKILL`` or ``RTMIN+1`` means.

    Raises:
        UsageError: there is no such signal.
    """
    name = text.strip().upper()
    if name.isascii() and name.isdigit() and 1 <= int(name) <= _HIGHEST:
        return int(name)
    number = _NUMBERS.get(name if name.startswith("SIG") else f"SIG{name}")
    if number is None or name.isdigit():
        message = f"not a signal: {text!r}"
        raise UsageError(message, hint="a name or number as `kill -l` lists them: KILL, SIGTERM, 9")
    return number
