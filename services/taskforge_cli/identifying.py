"""What the command shows to servers: an API key or a JWT, and over TLS a certificate."""

from functools import partial
from pathlib import Path

from taskforge_cli.failures import usage_error
from taskforge_core.settings import Settings
from taskforge_sdk import ApiKey, Tls
from taskforge_sdk.channels import is_local
from taskforge_sdk.credentials import Credential


def tls_of(settings: Settings) -> Tls | None:
    """How the command connects; None: in plaintext."""
    if settings.tls_authorities is None:
        return None
    return Tls(settings.tls_authorities, settings.tls_client_certificate, settings.tls_client_key)


def given_key(settings: Settings) -> ApiKey | None:
    """The key that the settings name; a file's is read again when it is refused.

    Raises:
        CommandError: It is no key that can be sent, or its file cannot be read.
    """
    if settings.api_key is not None:
        key = settings.api_key.get_secret_value().strip()
        return _checked("TASKFORGE_API_KEY is no key", key)
    file = settings.api_key_file
    if file is None:
        return None
    try:
        key = _read(file)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise usage_error(f"TASKFORGE_API_KEY_FILE: cannot read {file}: {why}") from None
    _checked(f"TASKFORGE_API_KEY_FILE: {file} holds no key", key)
    return partial(_read, file)


def local_key(settings: Settings, address: str) -> ApiKey | None:
    """The key of `taskforge dev`, for a server on this machine, if there is one for us.

    A certificate that identifies us takes its place.
    """
    if settings.tls_client_certificate is not None or not is_local(address):
        return None
    try:
        key = _read(settings.local_key_file)
    except (OSError, UnicodeDecodeError):
        return None
    return partial(_read, settings.local_key_file) if key else None


def refuse_plaintext_key(address: str) -> None:
    """Raise the line for a key that everybody on its way to the address could read."""
    if not is_local(address):
        raise usage_error(
            f"the API key would go to {address} in plaintext: set TASKFORGE_TLS_AUTHORITIES to the"
            " CA certificates that the server's is signed by"
        )


def _checked(complaint: str, key: str) -> str:
    try:
        Credential(key)
    except ValueError as error:
        raise usage_error(f"{complaint}: {str(error).removeprefix('api_key: ')}") from None
    return key


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip()
