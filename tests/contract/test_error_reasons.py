"""Every reason that an error can carry is provoked by some test, with the code it goes with.

The record is kept by nobody: it is read from the tests' own calls of `expect_error` and
`expect_status`, which fail unless the refusal has exactly the code and reason that stand there.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.stated_reasons import REASONS, stated_codes, stated_reasons

FOLDER = Path(__file__).parent
EXPECTATIONS = {"expect_error", "expect_status"}


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
    stated = stated_codes()
    assert set(stated) == REASONS
    assert provoked == {reason: {code} for reason, code in stated.items()}


# Our own defects can be met anywhere, and are promised nowhere.
@pytest.mark.parametrize("reason", sorted(REASONS - {"INTERNAL"}))
def test_every_reason_is_named_where_an_rpc_is_described(reason: str) -> None:
    assert any(reason in stated for stated in stated_reasons().values())
