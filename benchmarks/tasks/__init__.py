"""Tasks: how each kind of truth is scored."""
