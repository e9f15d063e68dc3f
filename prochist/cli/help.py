"""``prochist help``: a topic, or a command."""

import importlib

import click

from prochist.cli.topics import TOPICS
from prochist.errors import UsageError


@click.command("help")
@click.argument("topic", required=False)
def help(topic: str | None) -> None:  # noqa: A001  the name of the command
    """Explain TOPIC: times, gaps, views; or show the help of a command.

    Without TOPIC, what there is.
    """
    group: click.Group = importlib.import_module("prochist.cli.main").prochist
    context = click.Context(group, info_name="prochist")
    if topic is None:
        click.echo(group.get_help(context))
        click.echo("\nTopics: " + ", ".join(TOPICS) + "  (prochist help TOPIC)")
    elif topic in TOPICS:
        click.echo(TOPICS[topic], nl=False)
    elif (command := group.get_command(context, topic)) is not None:
        click.echo(command.get_help(click.Context(command, info_name=topic, parent=context)))
    else:
        raise UsageError(
            f"there is no topic or command {topic!r}", hint="topics: " + ", ".join(TOPICS)
        )
