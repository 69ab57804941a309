"""The `taskforge` command."""
