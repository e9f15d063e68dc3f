"""``prochist prune``: remove old lives now."""

import sys
from datetime import tzinfo
from pathlib import Path

import click

from prochist.cli.bounds import LEAST_SIZE, config_option, limit_options
from prochist.cli.options import Times, db_option, utc_option
from prochist.errors import UsageError
from prochist.show import human


@click.command()
@db_option
@config_option
@limit_options
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@utc_option
def prune(
    path: Path,
    keep: int | None,
    max_size: int | None,
    dry_run: bool,  # noqa: FBT001  click passes it by name
    zone: tzinfo | None,
) -> int:
    """Remove lives that ended long ago, and give the space back.

    What runs, and all its ancestors, stays, and so does everything that ended in
    the last 3 seconds. A recorder with the same limits does this by itself; this may run
    beside it, in small steps.

    Exit status: 0 lives were (would be) removed, 1 there are none to remove.
    """
    from prochist.service.pruning import forecast
    from prochist.service.pruning import prune as prune_now

    if keep is None and max_size is None:
        raise UsageError("nothing says what to remove", hint="--keep 30d, or --max-size 2G")
    if max_size is not None and max_size < LEAST_SIZE:
        raise UsageError("--max-size is too small", hint="at least 32M")
    times = Times(zone)
    if dry_run:
        seen = forecast(path, keep, max_size, times.now_ns)
        if not seen.lives or seen.ended_before_ns is None:
            click.echo("nothing to remove", err=True)
            return 1
        about = "about " if seen.is_estimate else ""
        until = human.instant(seen.ended_before_ns, zone)
        click.echo(
            f"would remove {about}{seen.lives:,} lives that ended until {until};"
            f" {seen.kept_ancestors:,} ancestors of what runs stay",
            err=True,
        )
        return 0

    def tell(removed: int) -> None:
        click.echo(f"\r{removed:,} lives removed", nl=False, err=True)

    shown = tell if sys.stderr.isatty() else lambda _: None
    done = prune_now(path, keep, max_size, times.now_ns, shown)
    if sys.stderr.isatty():
        click.echo("\r", nl=False, err=True)
    before, after = human.size(done.bytes_before), human.size(done.bytes_after)
    click.echo(f"{done.lives:,} lives removed; the database had {before}, has {after}", err=True)
    if not done.swept:
        click.echo("texts that nobody uses are left to the recorder, which is running", err=True)
    return 0 if done.lives else 1
