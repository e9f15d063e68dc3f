"""``install-service`` and ``uninstall-service``: the recorder as a service of systemd."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prochist.service.installation import Step

_dry_run = click.option("--dry-run", is_flag=True, help="Say each step and why, and do nothing.")


@click.command("install-service")
@_dry_run
def install_service(dry_run: bool) -> None:  # noqa: FBT001  click passes it by name
    """Record from now on and at every boot: install, enable and start the service.

    Explains each step. The service runs the prochist that this command was
    called with, as a user of its own.
    """
    from prochist.service.installation import find_program, plan_installation, refuse_unless_root

    if not dry_run:
        refuse_unless_root()
    _go(plan_installation(find_program()), dry_run=dry_run)


@click.command("uninstall-service")
@_dry_run
def uninstall_service(dry_run: bool) -> int:  # noqa: FBT001  click passes it by name
    """Stop the service and remove it. The history stays.

    Exit status: 0 done, 1 there was nothing to remove.
    """
    from prochist.service.installation import LEFT_BEHIND, plan_removal, refuse_unless_root

    if not dry_run:
        refuse_unless_root()
    steps = plan_removal()
    if not steps:
        click.echo("the service is not installed", err=True)
        return 1
    _go(steps, dry_run=dry_run)
    click.echo(LEFT_BEHIND, err=True)
    return 0


def _go(steps: "Sequence[Step]", *, dry_run: bool) -> None:
    for number, step in enumerate(steps, 1):
        prefix = "would " if dry_run else ""
        click.echo(f"{number}. {prefix}{step.what}\n   {step.why}", err=True)
        if not dry_run:
            step.do()
