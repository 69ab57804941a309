"""Whether a file on disk is still the one that was read."""

from pathlib import Path

FileVersion = tuple[int, int, int] | None
"""What changes with a file's content: inode, size, last write. None: there is no file."""


def version_of(file: Path) -> FileVersion:
    """The file's version now; look at it before you read, so that a write in between is seen."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
