"""What it means: lifetimes and gaps. Pure: no I/O, no clock of its own."""
