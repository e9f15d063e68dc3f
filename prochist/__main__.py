"""``prochist`` and ``python -m prochist``: the fast lane where it will do, else all commands."""

import sys


def main() -> None:
    """Be the program."""
    if sys.argv[1:2] == ["ps"]:
        from prochist.cli.quick import ps

        status = ps(sys.argv[2:])
        if status is not None:
            sys.exit(status)
    from prochist.cli.main import main as start

    start()


if __name__ == "__main__":
    main()
