"""Settings: what the environment may say, and what it may not."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from taskforge_core.settings import MissingDatabaseUrl, Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TASKFORGE_{name.upper()}", raising=False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20", 20),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("20s", 20),
        ("5m", 300),
        (" 1 h ", 3600),
        ("PT20S", 20),
        ("00:00:20", 20),
    ],
)
def test_a_duration_may_be_written_with_a_unit(
    text: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKFORGE_DRAIN_GRACE", text)
    assert Settings().drain_grace == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DRAIN_GRACE", "20 parsecs"),
        ("DRAIN_GRACE", "-1"),
        ("DRAIN_GRACE", "2h"),
        ("HOT_POOL_SIZE", "0"),
        ("HOT_POOL_SIZE", "many"),
        ("MAX_MESSAGE_BYTES", "1"),
        ("HISTORY_RETENTION", "1h"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("DATABASE_URL", "mysql://localhost/x"),
        ("DATABASE_URL", "localhost"),
        ("LISTEN_URL", "redis://localhost"),
        ("MIN_CLIENT_PING_INTERVAL", "1m"),
    ],
)
def test_a_wrong_value_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"TASKFORGE_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_a_password_in_a_refused_address_is_not_printed() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(database_url="mysql://me:hunter2@localhost/x")
    assert "hunter2" not in str(refused.value)


UNESCAPED = ["hun#ter2", "12#ter2", "hun/ter2", "12/ter2", "hun?ter2", "12?a=ter2", "hun[ter2",
    "hun]ter2", "hun[x]ter2", "hun@1:ter2", "12@/ter2", "hun#/?[ter2"]  # fmt: skip


@pytest.mark.parametrize("password", UNESCAPED)
@pytest.mark.parametrize("name", ["DATABASE_URL", "LISTEN_URL"])
def test_a_password_that_ends_an_address_early_is_not_told_but_what_to_do(
    name: str, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TASKFORGE_{name}", f"postgresql://me:{password}@localhost:5432/db")
    with pytest.raises(ValidationError, match="percent-encode") as refused:
        Settings()
    assert "ter2" not in str(refused.value)


@pytest.mark.parametrize(
    "rest",
    [
        "localhost:x/db",
        "localhost:0/db",
        "localhost:65536/db",
        "[::1/db",
        "a,,b/db",
        "a:1,b:x/db",
        "a/db?port=x",
        "a/db?port=99999",
        "a/db?sslmode=nonsense",
        "a/db?sslmode",
    ],
)
def test_what_the_driver_would_stumble_over_is_refused(rest: str) -> None:
    for user in ("", "me:hunter2@"):
        with pytest.raises(ValidationError) as refused:
            Settings(database_url=f"postgresql://{user}{rest}")
        assert "hunter2" not in str(refused.value)
        assert "nonsense" not in str(refused.value)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "/db",
        "me:%23%2F%3F%5B%40%25@localhost:5432/db",
        "me@/db?host=/run/a%20b/postgres",
        "me@a:5432,b:5433/db?target_session_attrs=primary",
        "[::1]:5432/db?sslmode=verify-full",
        "host:5432/db?user=me@tenant&application_name=x",
        "?host=a,/run,[::1]:5&port=5432",
        "host:/d%40b",
    ],
)
def test_an_address_that_the_driver_takes_is_taken(rest: str) -> None:
    url = f"postgresql://{rest}"
    assert Settings(database_url=url).require_database_url() == url


def test_a_password_is_not_shown_with_the_settings() -> None:
    address = "postgresql://me:hunter2@localhost/x"
    settings = Settings(database_url=address, listen_url=address)
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "hunter2" not in shown
    assert settings.require_database_url() == "postgresql://me:hunter2@localhost/x"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_the_spellings_of_a_postgres_address_are_one(scheme: str) -> None:
    settings = Settings(database_url=f"{scheme}://me@host:5432/db")
    assert settings.require_database_url() == "postgresql://me@host:5432/db"


def test_listening_goes_directly_where_that_differs() -> None:
    pooled = Settings(database_url="postgresql://pooler/db")
    assert pooled.require_listen_url() == "postgresql://pooler/db"
    direct = Settings(database_url="postgresql://pooler/db", listen_url="postgresql://postgres/db")
    assert direct.require_listen_url() == "postgresql://postgres/db"


def test_without_a_database_one_clear_line_tells_what_to_set() -> None:
    with pytest.raises(MissingDatabaseUrl, match="TASKFORGE_DATABASE_URL"):
        Settings().require_database_url()
    with pytest.raises(MissingDatabaseUrl):
        Settings().require_listen_url()


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKFORGE_DATABASE_URL", "")
    monkeypatch.setenv("TASKFORGE_LOG_LEVEL", "WARNING")
    assert Settings().database_url is None
    assert Settings().log_level == "warning"


def test_the_data_folder_follows_the_users_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
    assert Settings().data_folder == Path("/somewhere/taskforge/postgres")
    monkeypatch.setenv("TASKFORGE_DATA_FOLDER", "/elsewhere")
    assert Settings().data_folder == Path("/elsewhere")


@pytest.mark.parametrize(
    ("uid", "folder"),
    [
        (0, Path("/var/lib/taskforge/postgres")),
        (1000, Path("/home/someone/.local/share/taskforge/postgres")),
    ],
)
def test_the_data_folder_of_root_is_one_that_nobody_can_enter(
    uid: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setattr("os.geteuid", lambda: uid)
    assert Settings().data_folder == folder


def test_every_setting_says_what_it_means() -> None:
    undocumented = [name for name, field in Settings.model_fields.items() if not field.description]
    assert undocumented == []
