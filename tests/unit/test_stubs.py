"""The generated Python stubs: complete, typed, and one with the packages they build on."""

import importlib
import pkgutil
from pathlib import Path

import protovalidate
import pytest
from google.protobuf import descriptor_pool
from google.rpc import status_pb2

import taskforge
import taskforge.v1
from taskforge.v1 import job_service_pb2

MODULES = sorted(module.name for module in pkgutil.iter_modules(taskforge.v1.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_every_generated_module_imports(name: str) -> None:
    module = importlib.import_module(f"taskforge.v1.{name}")
    assert module.__name__ == f"taskforge.v1.{name}"


@pytest.mark.parametrize("name", MODULES)
def test_every_generated_module_has_types(name: str) -> None:
    assert Path(taskforge.v1.__path__[0], f"{name}.pyi").is_file()


def test_the_package_is_a_regular_one_into_which_nothing_merges() -> None:
    assert len(taskforge.__path__) == 1
    assert taskforge.__file__ is not None


def test_google_rpc_comes_from_its_own_package() -> None:
    generated = Path(taskforge.__path__[0]).parent
    assert not (generated / "google").exists()
    file = descriptor_pool.Default().FindFileByName("google/rpc/status.proto")
    assert file == status_pb2.DESCRIPTOR


def test_the_rules_of_the_contract_reach_the_validator() -> None:
    violations = protovalidate.collect_violations(job_service_pb2.CreateJobRequest())
    assert [violation.proto.rule_id for violation in violations] == ["required"]
