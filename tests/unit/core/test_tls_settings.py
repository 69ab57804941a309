"""Settings of TLS and of the credential that a client shows."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from taskforge_core.settings import Settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"TASKFORGE_{name.upper()}", raising=False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["tls_certificate"], "go together"),
        (["tls_key"], "go together"),
        (["tls_client_authorities"], "needs tls_certificate and tls_key"),
        (["tls_authorities", "tls_client_key"], "go together"),
        (["tls_authorities", "tls_client_certificate"], "go together"),
        (["tls_client_certificate", "tls_client_key"], "needs tls_authorities"),
    ],
)
def test_files_that_need_each_other_are_named_together(given: list[str], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Settings(**{name: Path("/file") for name in given})  # type: ignore[arg-type]


def test_a_key_is_shown_in_no_form_of_the_settings() -> None:
    settings = Settings(api_key="tfk_1_hunter2")  # type: ignore[arg-type]
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "hunter2" not in shown
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "tfk_1_hunter2"


def test_the_local_key_lies_with_the_data_it_opens() -> None:
    assert Settings(data_folder=Path("/data")).local_key_file == Path("/data/local.key")
