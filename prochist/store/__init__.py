"""Where it stays: open and migrate, the only INSERT and UPDATE, retention."""
