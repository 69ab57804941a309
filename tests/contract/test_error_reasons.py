"""Every reason that an error can carry is provoked by some test, with the code it goes with.

The record is kept by nobody: it is read from the tests' own calls of `expect_error` and
`expect_status`, which fail unless the refusal has exactly the code and reason that stand there.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskforge.v1 import error_reason_pb2

FOLDER = Path(__file__).parent
CONTRACT = FOLDER.parents[1] / "protos/taskforge/v1/error_reason.proto"
EXPECTATIONS = {"expect_error", "expect_status"}

REASONS = {
    name.removeprefix("ERROR_REASON_")
    for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name
    if name != "ERROR_REASON_UNSPECIFIED"
}


def expectations(source: str) -> Iterator[tuple[str, str]]:
    """The codes and reasons that a file's tests wait for."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Name(id=function),
                args=[_, ast.Attribute(value=ast.Name(id="StatusCode"), attr=code), reason],
            ) if function in EXPECTATIONS and isinstance(reason, ast.Constant):
                yield code, str(reason.value)


@pytest.fixture(scope="module")
def provoked() -> dict[str, set[str]]:
    """The codes with which each reason is waited for, by reason."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in FOLDER.rglob("test_*.py"):
        for code, reason in expectations(file.read_text()):
            found[reason].add(code)
    return found


def test_every_reason_of_the_contract_is_provoked(provoked: dict[str, set[str]]) -> None:
    assert set(provoked) == REASONS


def test_every_reason_comes_with_the_code_that_the_contract_states(
    provoked: dict[str, set[str]],
) -> None:
    stated = {
        reason: {code}
        for code, reason in re.findall(
            r"\n  // ([A-Z_]+): (?:[^\n]*\n  // )*[^\n]*\n  ERROR_REASON_([A-Z_]+) =",
            CONTRACT.read_text(),
        )
    }
    assert set(stated) == REASONS
    assert provoked == stated
