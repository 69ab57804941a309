"""`taskforge demo` on a handful of files, and with a fault that it must find."""

import re
import subprocess
from pathlib import Path

import pytest
from tests.support.dev_system import command_line, environment
from tests.support.statements import fetch


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Twelve files, one of them a Python file that no parser takes, one empty."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(5):
        (folder / f"module_{number}.py").write_text("def f(): ...\n" * number)
        (folder / f"text_{number}.txt").write_text("word " * number)
    (folder / "broken.py").write_text("def")
    (folder / "bytes.bin").write_bytes(bytes(range(256)))
    return folder


def _demo(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line("demo", *arguments),
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(variables),
        check=False,
    )


def test_a_handful_of_files_runs_green_with_every_result_checked(files: Path) -> None:
    demo = _demo("--path", str(files))
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "12 files, 0.0 MB: 30 jobs, each computed directly too." in demo.stdout
    assert "All 30 results equal what was computed directly" in demo.stdout
    row = next(line for line in demo.stdout.splitlines() if line.startswith(" all "))
    jobs, attempts, rescued, retried = (int(word) for word in row.split()[1:5])
    assert jobs == 30
    assert attempts == 30 + rescued + retried
    assert "Traceback" not in demo.stderr


def test_the_demo_leaves_neither_data_nor_queues_behind_but_keeps_them_when_asked(
    files: Path,
) -> None:
    demo = _demo("--path", str(files), "--limit", "2", "--workers", "1", "--keep")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    kept = re.search(r"taskforge dev --data-folder (\S+)/data$", demo.stdout, re.MULTILINE)
    assert kept is not None
    folder = Path(kept[1])
    try:
        assert (folder / "data" / "cluster").is_dir()
        assert (folder / "logs" / "worker-1.log").is_file()
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def test_on_a_database_of_somebody_it_leaves_no_key_that_is_good(
    files: Path, database_url: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    demo = _demo(
        *("--path", str(files), "--limit", "2", "--workers", "1", "--database-url", database_url),
        TASKFORGE_DATA_FOLDER=str(data),
        # Whatever else the user works with.
        TASKFORGE_API_KEY="tfk_of_another_system",
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    keys = fetch(database_url, "SELECT revoked_at IS NOT NULL AS gone FROM api_keys")
    assert [key["gone"] for key in keys] == [True]
    assert not data.exists()


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    demo = _demo("--path", str(tmp_path))
    assert demo.returncode == 2
    assert demo.stderr == f"error: --path: there is no file in {tmp_path}\n"
