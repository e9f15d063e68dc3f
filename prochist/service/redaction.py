r"""Redaction: secrets in command lines are overwritten before anything is kept.

Off unless asked for: a history of what ran is worth more when it is exact, and
no list of expressions knows every secret. Only argv is rewritten; exe, comm and
cwd stay.

An expression is searched in the arguments joined by single blanks. What its
groups match is overwritten, without groups all of the match; the blanks between
arguments stay, so that there are as many as before. Where what is overwritten
ends at white space within an argument, the rest of that argument goes as well.
"""

import re
import struct
from collections.abc import Iterable
from dataclasses import replace

from prochist.capture.execrecord import OFFSETS, MalformedExecRecordError, split_exec_records
from prochist.capture.observation import Description, Probed, Record
from prochist.errors import UsageError

MARK = b"[redacted]"

_WORDS = (
    r"(?:password|passwd|passphrase|passwort|secret|token|api[-_]?key|access[-_]?key|private[-_]?key"
    r"|credentials?)"
)
# All quantifiers are bounded or cannot match the same text in two ways: an argv of megabytes made
# to be slow takes as long as any other.
DEFAULTS = (
    # --password SECRET, -db-passwd SECRET
    r"(?i)(?<!\S)--?[\w.-]{0,40}" + _WORDS + r"[\w.-]{0,40}\s(?!-)(\S+)",
    # --password=SECRET, PGPASSWORD=SECRET, -Ddb.password=SECRET, password: SECRET
    r"(?i)" + _WORDS + r"[\w.-]{0,40}[\"']?(?:=|:\s?)[\"']?([^\s\"'=:][^\s\"']*)",
    # scheme://user:password@host
    r"(?i)\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@]{0,256}:([^\s/@]{1,4096})@",
    # Authorization: Bearer …
    r"(?i)\bauthorization:\s?(?:(?:basic|bearer|digest|token|negotiate)\s)?([^\s'\"]+)",
    r"(?i)\b(?:bearer|x-api-key:|x-auth-token:|private-token:)\s([^\s'\"]{8,})",
    # curl -u user:password, wget --user …
    r"(?<!\S)(?:-u|--user|--proxy-user)[ =]?[^\s:=/]{1,64}:(?!\d{1,10}(?!\S))(\S+)",
    # mysql -pPASSWORD, sshpass -p PASSWORD, smbclient -U user%password
    r"^\S{0,256}(?:mysql|mariadb)\S{0,64}\s(?:\S+\s)*?-p(\S+)",
    r"^\S{0,256}sshpass\s-p\s?(\S+)",
    r"(?<!\S)-U\s?[^\s%]{1,64}%(\S+)",
    # tokens that say what they are: AWS, GitHub, GitLab, Slack, JSON web tokens
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\bglpat-[\w-]{16,}",
    r"\bxox[abprs]-[\w-]{10,}",
    r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*",
)
"""What ``--redact-defaults`` looks for."""

_SPACE = b" \t\n\r\v\f"
_SIZE, _ARGV_SIZE, _CWD_END = (OFFSETS[name] for name in ("size", "argv_size", "cwd_end"))
_WORD = struct.Struct("=I")
_LONG = struct.Struct("=Q")


class Redaction:
    """Overwrites what any of the expressions matches."""

    def __init__(self, expressions: Iterable[str], *, defaults: bool = False) -> None:
        self._patterns = []
        for text in (*(DEFAULTS if defaults else ()), *expressions):
            try:
                pattern = re.compile(text.encode("utf-8", "surrogateescape"))
            except re.error as error:
                message = f"--redact {text!r} is not a regular expression: {error}"
                raise UsageError(message, hint="it is Python's re syntax, on bytes") from error
            if pattern.match(b"") and pattern.fullmatch(b""):
                message = f"--redact {text!r} matches nothing at all, which is everywhere"
                raise UsageError(message, hint="write what the secret looks like")
            self._patterns.append(pattern)

    def __bool__(self) -> bool:
        """Return whether there is anything to look for."""
        return bool(self._patterns)

    def apply(self, record: Record) -> Record:
        """Return the record without what is secret in its argv; the same if there is none."""
        if isinstance(record, Description):
            if not record.argv:
                return record
            argv = self.overwrite(record.argv)
            return record if argv is record.argv else replace(record, argv=argv)
        if isinstance(record, Probed):
            payload = self._apply_to_run(record.payload)
            return record if payload is record.payload else Probed(payload)
        return record

    def _apply_to_run(self, run: bytes) -> bytes:
        kept: list[bytes] = []
        changed = False
        try:
            for payload in split_exec_records(run):
                rewritten = self._apply_to_probed(payload)
                changed = changed or rewritten is not payload
                kept.append(rewritten)
        except MalformedExecRecordError:
            changed = True  # nobody decodes the rest, and what is in it must not be kept
        return b"".join(kept) if changed else run

    def _apply_to_probed(self, payload: bytes) -> bytes:
        (at,) = _WORD.unpack_from(payload, _CWD_END)
        before = payload[at:]
        after = self.overwrite(before)
        if after is before:
            return payload
        (argv_size,) = _LONG.unpack_from(payload, _ARGV_SIZE)
        cut = max(0, argv_size - len(before))
        rewritten = bytearray(payload[:at] + after)
        _WORD.pack_into(rewritten, _SIZE, len(rewritten))
        _LONG.pack_into(rewritten, _ARGV_SIZE, len(after) + cut)
        return bytes(rewritten)

    def overwrite(self, argv: bytes) -> bytes:
        """Return NUL-separated arguments with secrets overwritten; the same object if none is."""
        line = argv.replace(b"\0", b" ")
        spans = []
        for pattern in self._patterns:
            for match in pattern.finditer(line):
                groups = range(1, pattern.groups + 1) if pattern.groups else (0,)
                spans += [match.span(g) for g in groups if match.start(g) < match.end(g)]
        if not spans:
            return argv
        pieces = []
        done = 0
        for start, stop in sorted(spans):
            for piece_start, piece_stop in _within_arguments(argv, max(start, done), stop):
                end = piece_stop
                if end < len(argv) and argv[end] in _SPACE:
                    end = argv.find(b"\0", end)
                    end = len(argv) if end < 0 else end
                pieces += [argv[done:piece_start], MARK]
                done = end
        pieces.append(argv[done:])
        return b"".join(pieces)


def _within_arguments(argv: bytes, start: int, stop: int) -> list[tuple[int, int]]:
    """Cut a span where arguments end; empty parts are left out."""
    found = []
    while start < stop:
        end = argv.find(b"\0", start, stop)
        end = stop if end < 0 else end
        if end > start:
            found.append((start, end))
        start = end + 1
    return found


__all__ = ["DEFAULTS", "MARK", "Redaction"]
