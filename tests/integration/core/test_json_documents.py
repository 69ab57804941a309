"""What is accepted as a JSON document can be stored, and comes back as it was sent."""

import json
import random

import asyncpg
import pytest

from taskforge_core.database import Database
from taskforge_core.errors import InvalidArgument
from taskforge_core.json_documents import MAX_DEPTH, check_json

SEEDS = [
    '{"a": [1, 2.5, -3e7, true, false, null], "b": {"c": "d"}}',
    '["\\u0000", "\\ud83d\\ude00", "é€😀", "\\"\\\\\\/\\b\\f\\n\\r\\t"]',
    '{"a": 1, "a": {"a": 2}, "": ""}',
    " \t\r\n[ -0 , 0.10 , 1E+2 , 12345678901234567890123456789 ] ",
    '"\x7f\u2028\ufeff"',
    "[" * MAX_DEPTH + "]" * MAX_DEPTH,
]

ALPHABET = list('{}[]",:\\ \t\n0123456789.eE+-truefalsn/u\x00\x1f\x7f\u00a0\ufeffé€😀')


def mutated(chance: random.Random) -> str:
    """A document that was tampered with a little, so that many are documents still."""
    text = list(chance.choice(SEEDS))
    for _ in range(chance.randint(0, 3)):
        place = chance.randrange(len(text) + 1)
        match chance.choice(["insert", "delete", "copy"]):
            case "insert":
                text.insert(place, chance.choice(ALPHABET))
            case "delete":
                del text[place : place + 1]
            case _:
                text[place:place] = text[place : place + chance.randint(1, 5)]
    return "".join(text)


@pytest.mark.parametrize("seed", range(3))
async def test_postgres_stores_every_text_that_is_accepted_unchanged(
    database: Database, seed: int
) -> None:
    chance = random.Random(seed)
    accepted = 0
    async with database.hot.acquire() as connection:
        for _ in range(700):
            text = mutated(chance)
            try:
                check_json(text, "payload")
            except InvalidArgument:
                continue
            accepted += 1
            assert await connection.fetchval("SELECT $1::text::json", text) == text
    assert accepted > 100


async def test_what_postgres_refuses_is_refused_before(database: Database) -> None:
    for text in ("", "NaN", "Infinity", "[1,]", "{} {}", "01", '"\n"', "\ufeff{}", "[", "'a'"):
        with pytest.raises(asyncpg.DataError):
            await database.hot.fetchval("SELECT $1::text::json", text)
        with pytest.raises(InvalidArgument):
            check_json(text, "payload")


async def test_equal_keys_are_kept_as_they_were_sent(database: Database) -> None:
    text = '{"a": 1, "a": 2}'
    check_json(text, "payload")
    stored = await database.hot.fetchval("SELECT $1::text::json", text)
    assert json.loads(stored, object_pairs_hook=list) == [("a", 1), ("a", 2)]
