"""What the kernel says: wire formats (pure) and the thin sockets and files they come from.

No SQLite, no click, no idea of a lifetime.
"""
