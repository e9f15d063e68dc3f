"""Let ``python -m prochist`` be the command."""

from prochist.cli.main import main

if __name__ == "__main__":
    main()
