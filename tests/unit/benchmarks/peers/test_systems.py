import json

import pytest
from tests.benchmarks.peers.__main__ import skips
from tests.benchmarks.peers.comparisons import COMPARISONS
from tests.benchmarks.peers.installing import FOLDER, CannotInstall, Toolchain
from tests.benchmarks.peers.loading import payload_of
from tests.benchmarks.peers.systems import (
    EMPTY_CALL,
    GRAPHILE_WORKER,
    PG_BOSS,
    PGQUEUER,
    RAW_SQL,
    System,
)

NOTHING = CannotInstall("Node.js cannot be installed: no wheel")


def test_without_node_the_node_peers_are_skipped_and_each_says_why() -> None:
    lines = skips(list(COMPARISONS.values()), Toolchain("/venv/bin/python", NOTHING))
    assert lines == [f"graphile-worker: {NOTHING}", f"pg-boss: {NOTHING}"]


def test_without_any_toolchain_the_limits_are_still_measured() -> None:
    lines = skips(list(COMPARISONS.values()), Toolchain(NOTHING, NOTHING))
    assert [line.split(":")[0] for line in lines] == ["pgqueuer", "graphile-worker", "pg-boss"]


@pytest.mark.parametrize("system", [PGQUEUER, GRAPHILE_WORKER, PG_BOSS, RAW_SQL, EMPTY_CALL])
def test_every_system_has_its_load_script(system: System) -> None:
    folder = FOLDER / system.folder
    assert [*folder.glob("load.*")], folder


@pytest.mark.parametrize("sent", [0, 12_345_678_901_234])
def test_a_payload_has_its_size_and_says_when_it_was_sent(sent: int) -> None:
    payload = payload_of(120, sent)
    assert len(payload) == 120
    assert json.loads(payload)["sent"] == sent
