"""The recorder: the loop that knows capture, history and store; and its state for others."""
