"""Options that bound and shield what is recorded, and the file that can set them.

``/etc/prochist.toml`` has the options of ``record`` by their long names; what is on
the command line or in the environment wins. ``contrib/prochist.toml`` is the sample.
"""

import functools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from prochist.errors import ProchistError, UsageError

CONFIGURATION = Path("/etc/prochist.toml")

_F = TypeVar("_F", bound=Callable[..., Any])


def parse_size(text: str) -> int:
    """Parse a size such as ``64M`` or ``256K`` into bytes; units are powers of 1024.

    Raises:
        ValueError: not a size.

    """
    units = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
    number, unit = text.strip().upper().removesuffix("B").removesuffix("I"), ""
    if number and not number[-1].isdecimal():
        number, unit = number[:-1], number[-1]
    if unit not in units or not number.replace(".", "", 1).isdecimal() or not number.isascii():
        message = f"{text!r} is not a size: write a number with K, M or G behind it, as in 64M"
        raise ValueError(message)
    return int(float(number) * units[unit])


if TYPE_CHECKING:
    _IntegerType = click.ParamType[int]
else:
    _IntegerType = click.ParamType  # not generic before click 8.4


class Size(_IntegerType):
    """A number of bytes, with K, M, G or T."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the bytes, or fail with what is accepted."""
        if isinstance(value, int):
            return value
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Age(_IntegerType):
    """A duration, which becomes nanoseconds."""

    name = "age"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the nanoseconds, or fail with what is accepted."""
        from prochist.ask.timespec import parse_duration

        if isinstance(value, int):
            return value
        try:
            age_ns = parse_duration(str(value))
        except UsageError as error:
            self.fail(f"{error.message} ({error.hint})", param, ctx)
        if age_ns <= 0:
            self.fail("an age is more than nothing, as in 30d", param, ctx)
        return age_ns


def read_configuration(path: Path, known: set[str]) -> dict[str, Any]:
    """Read options from a file: their long names, with ``-`` or ``_``.

    Raises:
        ProchistError: it cannot be read, is not TOML, or has a name that is no option.

    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise ProchistError(message, hint="check its permissions, or use --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        message = f"{path} is not TOML: {error}"
        raise ProchistError(message, hint="see contrib/prochist.toml for a sample") from error
    found = {name.replace("-", "_"): value for name, value in content.items()}
    unknown = sorted(set(found) - known)
    if unknown:
        message = f"{path} sets {unknown[0]!r}, which is no option of this command"
        names = ", ".join(sorted(name.replace("_", "-") for name in known))
        raise ProchistError(message, hint=f"it may set: {names}")
    return found


_NOT_IN_FILE = {"config", "database", "capture", "simulate_loss", "simulate_silence", "dry_run"}


def _apply(ctx: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    path = Path(value) if value is not None else CONFIGURATION
    if value is None and not path.exists():
        return
    of_record = {p.name for p in _options_of_record() if p.name is not None} - _NOT_IN_FILE
    found = read_configuration(path, of_record)
    here = {p.name for p in ctx.command.params}
    ctx.default_map = {**(ctx.default_map or {}), **{k: v for k, v in found.items() if k in here}}


def _options_of_record() -> list[click.Parameter]:
    from prochist.cli.record import record

    return record.params


def config_option(command: _F) -> _F:
    """Add ``--config FILE``, whose values become the defaults of the other options."""
    return click.option(
        "--config",
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_apply,
        help=f"Read options from FILE; the command line wins.  [default: {CONFIGURATION}, if any]",
    )(command)


def limit_options(command: _F) -> _F:
    """Add ``--keep`` and ``--max-size``: ``keep_ns`` and ``max_size_bytes``."""
    size = click.option(
        "--max-size",
        "max_size",
        type=Size(),
        metavar="SIZE",
        help="Remove the oldest lives that ended when the database, its log included, would become"
        " larger. At least 32M.",
    )
    age = click.option(
        "--keep",
        "keep",
        type=Age(),
        metavar="AGE",
        help="Remove lives that ended longer ago than AGE, such as 30d. Ancestors of what runs"
        " stay.",
    )
    return age(size(command))


def redaction_options(command: _F) -> Callable[..., Any]:
    """Add what is overwritten in command lines: the argument ``redaction``, None for nothing."""

    @functools.wraps(command)
    def called(
        *arguments: Any,  # noqa: ANN401  passed on as it is
        redact: tuple[str, ...],
        redact_defaults: bool,
        **more: Any,  # noqa: ANN401  passed on as it is
    ) -> Any:  # noqa: ANN401  passed on as it is
        from prochist.service.redaction import Redaction

        redaction = Redaction(redact, defaults=redact_defaults)
        return command(*arguments, redaction=redaction or None, **more)

    expressions = click.option(
        "--redact",
        multiple=True,
        metavar="REGEX",
        help="Overwrite what matches in command lines before anything is written; of a"
        " match with groups, only these. Arguments are joined by blanks. Repeatable.",
    )
    defaults = click.option(
        "--redact-defaults",
        is_flag=True,
        help="Overwrite the usual secrets as well: --password=…, tokens, credentials in URLs.",
    )
    wrapped: Callable[..., Any] = expressions(defaults(called))
    return wrapped


def recording_options(command: _F) -> Callable[..., Any]:
    """Add what bounds and shields to ``record``: the argument ``bounds``, settings by name."""

    @functools.wraps(command)
    def called(
        *arguments: Any,  # noqa: ANN401  passed on as it is
        keep: int | None,
        max_size: int | None,
        redaction: object,
        metrics_file: Path | None,
        **more: Any,  # noqa: ANN401  passed on as it is
    ) -> Any:  # noqa: ANN401  passed on as it is
        if max_size is not None and max_size < LEAST_SIZE:
            raise UsageError("--max-size is too small", hint="at least 32M")
        bounds = {
            "keep_ns": keep,
            "max_size_bytes": max_size,
            "redaction": redaction,
            "metrics_file": metrics_file,
        }
        return command(*arguments, bounds=bounds, **more)

    options = (
        config_option,
        limit_options,
        redaction_options,
        click.option(
            "--metrics-file",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Write metrics to FILE every 15 s, for node_exporter's textfile collector.",
        ),
    )
    wrapped: Callable[..., Any] = called
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


LEAST_SIZE = 32 << 20

__all__ = [
    "Age",
    "Size",
    "config_option",
    "limit_options",
    "read_configuration",
    "recording_options",
    "redaction_options",
]
