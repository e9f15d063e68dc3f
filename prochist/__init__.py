"""prochist: the history of every process lifetime on a Linux host.

The map of the house, in the one direction that things flow and may import::

    capture/   what the kernel says: wire formats, sockets, /proc, the receiver
       |       (no SQLite, no click, no idea of a lifetime)
    history/   what it means: lifetimes and gaps (pure: no I/O, no clock)
       |
    store/     where it stays: open, migrate, write, prune
       :
    schema/    SQL; all that writing and asking have in common
       :
    ask/       the only SELECTs for users: times, filters, lives, trees
       |
    show/      rows become text (no clock, no terminal, no database)
       |
    cli/       click: options in, exit statuses out

    service/   the recorder, the loop that knows capture, history and store;
               its state for others: notify, status, doctor
    errors.py  clock.py   the ground floor: errors with hints; time conversions

``tests/test_architecture.py`` holds the import table.
"""

__version__ = "0.1.0"
