import json
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import call

import pytest
import typer
from tests.unit.cli.building import NOON, Taskforge

from taskforge_sdk import (
    AuditEntry,
    KeyInfo,
    NewKey,
    Organisation,
    Permission,
    Project,
    ProjectQuotas,
)

ACME = "0192a000-0000-7000-8000-00000000ac3e"
MAIN = "0192a000-0000-7000-8000-0000000a1200"
KEY = "0192a000-0000-7000-8000-000000000fee"
TEXT = "tfk_0192a000000070008000000000000fee_secret"


def an_organisation(**changes: Any) -> Organisation:
    values: dict[str, Any] = {
        "id": ACME,
        "name": "acme",
        "is_operator": False,
        "is_enabled": True,
        "disabled_at": None,
        "created_at": NOON,
        "updated_at": NOON,
        "max_projects": None,
    }
    return Organisation(**{**values, **changes})


def a_project(**changes: Any) -> Project:
    values: dict[str, Any] = {
        "id": MAIN,
        "organisation_id": ACME,
        "name": "main",
        "is_enabled": True,
        "disabled_at": None,
        "quotas": ProjectQuotas(),
        "created_at": NOON,
        "updated_at": NOON,
    }
    return Project(**{**values, **changes})


def a_key(**changes: Any) -> KeyInfo:
    values: dict[str, Any] = {
        "id": KEY,
        "organisation_id": ACME,
        "project_id": None,
        "name": "deploy",
        "permissions": (Permission.QUEUE_READ, Permission.ADMIN),
        "certificate_name": None,
        "created_by": "bootstrap",
        "created_at": NOON,
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": None,
    }
    return KeyInfo(**{**values, **changes})


def an_entry(**changes: Any) -> AuditEntry:
    values: dict[str, Any] = {
        "id": 7,
        "at": NOON,
        "organisation_id": ACME,
        "project_id": None,
        "actor": f"key {KEY}",
        "action": "CreateProject",
        "target": f"projects/{MAIN}",
        "detail_json": '{"name": "main"}',
        "request_id": "r",
    }
    return AuditEntry(**{**values, **changes})


@pytest.fixture
def known(client: Any) -> Any:
    """A client that knows one organisation with one project."""
    client.list_organisations.side_effect = lambda **_: iter([an_organisation()])
    client.list_projects.side_effect = lambda **_: iter([a_project()])
    client.update_organisation.return_value = an_organisation()
    client.update_project.return_value = a_project()
    client.create_api_key.return_value = NewKey(a_key(), TEXT)
    client.get_api_key.return_value = client.revoke_api_key.return_value = a_key()
    return client


# -- Organisations -------------------------------------------------------------------------------


def test_an_organisation_is_made(client: Any, taskforge: Taskforge) -> None:
    client.create_organisation.return_value = an_organisation()
    outcome = taskforge("admin", "organisation", "create", "acme")
    assert outcome.out == f"Created the organisation acme ({ACME}).\n"
    client.create_organisation.assert_called_once_with("acme")


def test_the_json_of_an_organisation_has_every_key(client: Any, taskforge: Taskforge) -> None:
    client.create_organisation.return_value = an_organisation(is_enabled=False, disabled_at=NOON)
    outcome = taskforge("admin", "organisation", "create", "acme", "--json")
    assert json.loads(outcome.out) == {
        "id": ACME,
        "name": "acme",
        "is_operator": False,
        "is_enabled": False,
        "disabled_at": "2026-11-24T12:00:00.123456Z",
        "created_at": "2026-11-24T12:00:00.123456Z",
        "updated_at": "2026-11-24T12:00:00.123456Z",
        "max_projects": None,
    }


@pytest.mark.parametrize(
    ("arguments", "changes", "line"),
    [
        (("rename", "acme", "new"), {"name": "new"}, "Renamed the organisation acme to acme.\n"),
        (("enable", "acme"), {"is_enabled": True}, "Enabled the organisation acme.\n"),
        (("disable", ACME), {"is_enabled": False}, "Disabled the organisation acme.\n"),
    ],
)
def test_an_organisation_is_changed_by_its_name_or_id(
    known: Any,
    taskforge: Taskforge,
    arguments: tuple[str, ...],
    changes: dict[str, Any],
    line: str,
) -> None:
    assert taskforge("admin", "organisation", *arguments).out == line
    known.update_organisation.assert_called_once_with(ACME, **changes)


def test_organisations_are_listed(client: Any, taskforge: Taskforge) -> None:
    rows = [
        an_organisation(is_operator=True),
        an_organisation(name="b", is_enabled=False, max_projects=1000),
    ]
    client.list_organisations.side_effect = lambda **_: iter(rows)
    lines = taskforge("admin", "organisation", "list").out.splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATE", "MAX", "PROJECTS", "CREATED"]
    assert lines[1].split()[:5] == [ACME, "acme", "enabled,", "operator", "-"]
    assert lines[2].split()[:4] == [ACME, "b", "disabled", "1,000"]
    document = json.loads(taskforge("admin", "organisation", "list", "--limit", "1", "--json").out)
    assert [each["name"] for each in document["organisations"]] == ["acme"]


def test_a_name_that_nobody_has_changes_nothing(known: Any, taskforge: Taskforge) -> None:
    for arguments, line in (
        (
            ("organisation", "disable", "amce"),
            "ORGANISATION_NOT_FOUND: there is no organisation amce",
        ),
        (("project", "disable", "mian"), "PROJECT_NOT_FOUND: there is no project mian"),
        (
            ("key", "create", "k", "--permission", "admin", "--project", "mian"),
            "PROJECT_NOT_FOUND: there is no project mian",
        ),
    ):
        outcome = taskforge("admin", *arguments)
        assert (outcome.code, outcome.out, outcome.err) == (1, "", f"error: {line}\n")
    known.update_organisation.assert_not_called()
    known.update_project.assert_not_called()
    known.create_api_key.assert_not_called()


@pytest.mark.parametrize(("text", "limit"), [("5", 5), ("none", None)])
def test_an_organisations_quota_is_set_and_lifted(
    known: Any, taskforge: Taskforge, text: str, limit: int | None
) -> None:
    known.update_organisation.return_value = an_organisation(max_projects=limit)
    outcome = taskforge("admin", "organisation", "quota", "acme", "--max-projects", text)
    shown = ["(no", "limit)"] if limit is None else [text]
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["Organisation", "acme"],
        ["Max", "projects", *shown],
    ]
    known.update_organisation.assert_called_once_with(ACME, max_projects=limit)


def test_an_organisations_quota_is_shown_and_does_not_change_where_none_is_given(
    known: Any, taskforge: Taskforge
) -> None:
    known.get_organisation.return_value = an_organisation(max_projects=10_000)
    out = taskforge("admin", "organisation", "quota", "acme").out
    assert "10,000" in out
    document = json.loads(taskforge("admin", "organisation", "quota", "acme", "--json").out)
    assert document["max_projects"] == 10_000
    known.update_organisation.assert_not_called()


def test_a_quota_that_is_no_number_is_refused(known: Any, taskforge: Taskforge) -> None:
    outcome = taskforge("admin", "organisation", "quota", "acme", "--max-projects", "many")
    line = "error: --max-projects takes a number or none, not 'many'\n"
    assert (outcome.code, outcome.err) == (2, line)
    known.update_organisation.assert_not_called()


# -- Projects ------------------------------------------------------------------------------------


def test_a_project_is_made_with_and_without_quotas(known: Any, taskforge: Taskforge) -> None:
    known.create_project.return_value = a_project()
    outcome = taskforge("admin", "project", "create", "main")
    assert outcome.out == f"Created the project main ({MAIN}).\n"
    taskforge(
        "admin", "project", "create", "main", "--organisation", "acme",
        "--max-jobs-per-second", "1", "--max-unfinished-jobs", "2", "--max-queues", "3",
        "--max-lease-streams", "4", "--max-request-bytes", "5000",
    )  # fmt: skip
    assert known.create_project.mock_calls == [
        call("main", organisation_id="", quotas=None),
        call("main", organisation_id=ACME, quotas=ProjectQuotas(1, 2, 3, 4, 5000)),
    ]


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        (("rename", "main", "new"), {"name": "new"}),
        (("enable", MAIN), {"is_enabled": True}),
        (("disable", "main", "--organisation", "acme"), {"is_enabled": False}),
        (("quota", "main", "--max-queues", "5"), {"quotas": {"max_queues": 5}}),
        (
            ("quota", "main", "--max-queues", "5", "--unlimited", "max-lease-streams"),
            {"quotas": {"max_queues": 5, "max_lease_streams": None}},
        ),
    ],
)
def test_a_project_is_changed_by_its_name_or_id(
    known: Any, taskforge: Taskforge, arguments: tuple[str, ...], changes: dict[str, Any]
) -> None:
    assert taskforge("admin", "project", *arguments).code == 0
    known.update_project.assert_called_once_with(MAIN, **changes)


def test_quotas_are_shown_and_nothing_changes_where_none_is_given(
    known: Any, taskforge: Taskforge
) -> None:
    known.get_project.return_value = a_project(quotas=ProjectQuotas(max_unfinished_jobs=10_000))
    lines = taskforge("admin", "project", "quota", "main").out.splitlines()
    assert [line.split() for line in lines] == [
        ["Project", "main"],
        ["Max", "jobs", "per", "second", "(no", "limit)"],
        ["Max", "unfinished", "jobs", "10,000"],
        ["Max", "queues", "(no", "limit)"],
        ["Max", "lease", "streams", "(no", "limit)"],
        ["Max", "request", "bytes", "(no", "limit)"],
    ]
    known.update_project.assert_not_called()
    document = json.loads(taskforge("admin", "project", "quota", "main", "--json").out)
    assert document["quotas"]["max_unfinished_jobs"] == 10_000
    assert document["quotas"]["max_queues"] is None


def test_a_quota_that_is_set_and_lifted_is_refused(known: Any, taskforge: Taskforge) -> None:
    outcome = taskforge(
        "admin", "project", "quota", "main", "--max-queues", "5", "--unlimited", "max-queues"
    )
    line = "error: --max-queues and --unlimited max-queues exclude each other\n"
    assert (outcome.code, outcome.err) == (2, line)


def test_projects_are_listed_with_their_quotas(client: Any, taskforge: Taskforge) -> None:
    quotas = ProjectQuotas(max_queues=3, max_jobs_per_second=1000)
    client.list_projects.side_effect = lambda **_: iter([a_project(quotas=quotas)])
    out = taskforge("admin", "project", "list").out
    assert "max-jobs-per-second 1,000, max-queues 3" in out
    document = json.loads(taskforge("admin", "project", "list", "--json").out)
    assert document["projects"][0]["id"] == MAIN


# -- Keys ----------------------------------------------------------------------------------------


def test_a_new_key_stands_alone_on_stdout(known: Any, taskforge: Taskforge) -> None:
    outcome = taskforge(
        "admin", "key", "create", "deploy", "--permission", "queue:read", "--permission", "admin"
    )
    assert outcome.out == f"{TEXT}\n"
    assert outcome.err == f"Created the key deploy ({KEY}). It cannot be shown again:\n"
    known.create_api_key.assert_called_once_with(
        "deploy",
        [Permission.QUEUE_READ, Permission.ADMIN],
        organisation_id="",
        project_id="",
        expires_at=None,
        certificate_name="",
    )


def test_a_key_is_made_as_the_options_say(known: Any, taskforge: Taskforge) -> None:
    before = datetime.now(UTC)
    taskforge(
        "admin", "key", "create", "deploy", "--permission", "job:write", "--project", "main",
        "--organisation", "acme", "--expires-after", "1d", "--certificate-name", "worker.example",
    )  # fmt: skip
    asked = known.create_api_key.call_args.kwargs
    assert asked["organisation_id"] == ACME
    assert asked["project_id"] == MAIN
    assert asked["certificate_name"] == "worker.example"
    assert timedelta(0) <= asked["expires_at"] - before - timedelta(days=1) < timedelta(minutes=1)


def test_a_key_in_json_has_its_text(known: Any, taskforge: Taskforge) -> None:
    outcome = taskforge("admin", "key", "create", "k", "--permission", "admin", "--json")
    assert outcome.err == ""
    document = json.loads(outcome.out)
    assert document["text"] == TEXT
    assert document["permissions"] == ["queue:read", "admin"]


def test_a_certificates_key_has_no_text_to_print(known: Any, taskforge: Taskforge) -> None:
    known.create_api_key.return_value = NewKey(a_key(certificate_name="w.example"), None)
    outcome = taskforge(
        "admin", "key", "create", "k", "--permission", "admin", "--certificate-name", "w.example"
    )
    assert outcome.out == f"Created the key k ({KEY}) for certificates of the name w.example.\n"


def test_a_permission_that_does_not_exist_is_refused(known: Any, taskforge: Taskforge) -> None:
    for arguments in (("--permission", "root"), ()):
        assert taskforge("admin", "key", "create", "k", *arguments).code == 2
    known.create_api_key.assert_not_called()


def test_keys_are_listed_with_their_state_and_without_a_text(
    known: Any, taskforge: Taskforge
) -> None:
    rows = [
        a_key(),
        a_key(project_id=MAIN, expires_at=datetime(2020, 1, 1, tzinfo=UTC)),
        a_key(revoked_at=NOON, expires_at=datetime(2999, 1, 1, tzinfo=UTC)),
        a_key(expires_at=datetime(2999, 1, 1, tzinfo=UTC)),
    ]
    known.list_api_keys.side_effect = lambda **_: iter(rows)
    lines = taskforge("admin", "key", "list").out.splitlines()
    assert "valid " in lines[1]
    assert "(all)" in lines[1]
    assert "queue:read admin" in lines[1]
    assert "expired 2020-01-01" in lines[2]
    assert " main " in lines[2]
    assert "revoked 2026-11-24" in lines[3]
    assert "valid until 2999-01-01" in lines[4]
    assert "CERTIFICATE" not in lines[0]
    assert all(line.endswith("  bootstrap") for line in lines[1:])
    document = json.loads(taskforge("admin", "key", "list", "--json", "--project", "main").out)
    assert "text" not in document["api_keys"][0]
    assert known.list_api_keys.call_args == call(organisation_id="", project_id=MAIN, page_size=100)


def test_the_list_of_keys_names_the_certificates_that_prove_them(
    known: Any, taskforge: Taskforge
) -> None:
    rows = [a_key(), a_key(certificate_name="worker.example", created_by=f"key {KEY}")]
    known.list_api_keys.side_effect = lambda **_: iter(rows)
    heading, textual, proven = taskforge("admin", "key", "list").out.splitlines()
    assert heading.endswith("CERTIFICATE     MADE BY")
    assert textual.endswith("  -               bootstrap")
    assert proven.endswith(f"  worker.example  key {KEY}")


def test_a_name_is_no_id_of_a_key(known: Any, taskforge: Taskforge) -> None:
    outcome = taskforge("admin", "key", "revoke", "deploy")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "error: 'deploy' is no id of a key: taskforge admin key list shows the ids\n"
    )
    known.revoke_api_key.assert_not_called()


def test_a_key_is_revoked(known: Any, taskforge: Taskforge) -> None:
    outcome = taskforge("admin", "key", "revoke", KEY)
    assert outcome.out == f"Revoked the key deploy ({KEY}).\n"
    known.revoke_api_key.assert_called_once_with(KEY)


def test_a_person_is_asked_before_a_key_is_revoked(
    known: Any, taskforge: Taskforge, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("taskforge_cli.admin.keys.on_terminal", lambda: True)
    monkeypatch.setattr("taskforge_cli.admin.keys.ask", asked.append)
    taskforge("admin", "key", "revoke", KEY)
    taskforge("admin", "key", "revoke", KEY, "--yes")
    assert asked == ["Revoke the key deploy for ever?"]


@pytest.mark.parametrize(
    ("kind", "name", "question"),
    [
        (
            "organisation",
            "acme",
            "Refuse all keys of the organisation acme, and end its open streams?",
        ),
        ("project", "main", "Refuse all calls about the project main, and end its open streams?"),
    ],
)
def test_a_person_is_asked_before_something_is_disabled(
    known: Any,
    taskforge: Taskforge,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    name: str,
    question: str,
) -> None:
    def no(question: str) -> None:
        asked.append(question)
        raise typer.Abort

    asked: list[str] = []
    monkeypatch.setattr(f"taskforge_cli.admin.{kind}s.on_terminal", lambda: True)
    monkeypatch.setattr(f"taskforge_cli.admin.{kind}s.ask", no)
    change = getattr(known, f"update_{kind}")
    assert taskforge("admin", kind, "disable", name).code == 1
    change.assert_not_called()
    assert taskforge("admin", kind, "disable", name, "--yes").code == 0
    change.assert_called_once()
    taskforge("admin", kind, "enable", name)
    assert asked == [question]


# -- The audit log -------------------------------------------------------------------------------


def test_the_audit_log_is_a_table(client: Any, taskforge: Taskforge) -> None:
    client.list_audit_entries.side_effect = lambda **_: iter([an_entry(), an_entry(id=6)])
    lines = taskforge("admin", "audit", "--limit", "1").out.splitlines()
    assert lines[0].split() == ["AT", "ACTOR", "ACTION", "TARGET", "DETAIL"]
    assert lines[1].endswith(f'key {KEY}  CreateProject  projects/{MAIN}  {{"name": "main"}}')
    assert lines[2] == "These are the latest 1; --limit shows more."
    client.list_audit_entries.side_effect = lambda **_: iter([])
    assert taskforge("admin", "audit").out == "Nothing was changed.\n"


def test_the_json_of_the_audit_log_has_every_key(known: Any, taskforge: Taskforge) -> None:
    known.list_audit_entries.side_effect = lambda **_: iter([an_entry()])
    outcome = taskforge("admin", "audit", "--organisation", "acme", "--project", "main", "--json")
    assert json.loads(outcome.out)["entries"] == [
        {
            "id": 7,
            "at": "2026-11-24T12:00:00.123456Z",
            "organisation_id": ACME,
            "project_id": None,
            "actor": f"key {KEY}",
            "action": "CreateProject",
            "target": f"projects/{MAIN}",
            "detail": {"name": "main"},
            "request_id": "r",
        }
    ]
    assert known.list_audit_entries.call_args == call(
        organisation_id=ACME, project_id=MAIN, page_size=51
    )
