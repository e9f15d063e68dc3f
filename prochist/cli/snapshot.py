"""``prochist snapshot``: a consistent copy, while recording goes on."""

import sys
from pathlib import Path

import click

from prochist.cli.options import db_option
from prochist.show import human


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@db_option
@click.option(
    "--anonymise",
    is_flag=True,
    help="Replace users, hosts, arguments, paths and names by hashes, the same for the same word,"
    " with a key that is thrown away.",
)
def snapshot(
    file: Path,
    path: Path,
    anonymise: bool,  # noqa: FBT001  click passes it by name
) -> None:
    """Copy the history into FILE, complete as of one instant.

    Works while a recorder writes, and does not disturb it. FILE must not exist.
    """
    from prochist.service.snapshot import snapshot as copy

    shown = sys.stderr.isatty()

    def tell(done: int, total: int) -> None:
        if shown:
            click.echo(f"\r{100 * done // max(1, total)} % copied", nl=False, err=True)

    size = copy(path, file, anonymise=anonymise, tell=tell)
    if shown:
        click.echo("\r", nl=False, err=True)
    click.echo(f"{file} holds {human.size(size)}", err=True)
