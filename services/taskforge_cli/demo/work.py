"""The three kinds of work of the demo, as plain functions of a file's bytes.

The workers call them on a job's file, and the demo calls them directly to know what must come out.
"""

import ast
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

Result: TypeAlias = dict[str, str | int | None]

SHA256 = "sha256"
WORD_COUNT = "word-count"
COUNT_FUNCTIONS = "count-functions"

_FLAKY_ONE_IN = 33
"""About 3 % of all jobs fail at their first attempt."""


def sha256(data: bytes) -> Result:
    """The file's digest and its length."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def word_count(data: bytes) -> Result:
    """How many runs of bytes stand between white space."""
    return {"words": len(data.split())}


def count_functions(data: bytes) -> Result:
    """How many functions and methods a Python file defines; None where it is no valid Python."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        # The library's tests hold files that no parser takes: that is their purpose.
        return {"functions": None, "refused": type(error).__name__}
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {"functions": sum(isinstance(node, functions) for node in ast.walk(tree))}


WORK: Mapping[str, Callable[[bytes], Result]] = MappingProxyType(
    {SHA256: sha256, WORD_COUNT: word_count, COUNT_FUNCTIONS: count_functions}
)
"""What each job type does."""


def job_types_of(path: str) -> tuple[str, ...]:
    """The types of jobs that a file becomes."""
    return (*((COUNT_FUNCTIONS,) if path.endswith(".py") else ()), SHA256, WORD_COUNT)


def is_flaky(path: str, job_type: str) -> bool:
    """Whether the first attempt of this job is to fail: the same jobs in every run."""
    return spread(f"flaky {job_type} {path}") % _FLAKY_ONE_IN == 0


def spread(text: str) -> int:
    """A number that is the same in every process, and spread evenly over texts."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
