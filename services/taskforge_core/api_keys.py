"""API keys: `tfk_<id>_<secret>`, where the id finds the key and the secret proves it."""

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from hmac import compare_digest
from uuid import UUID

from taskforge_core.ids import uuid7

_KEY = re.compile(r"tfk_([0-9a-f]{32})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES = 32

_NO_SECRET = hashlib.sha256(b"").digest()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The two parts of a key as it is sent."""

    id: UUID
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """What its owner sends as `authorization: Bearer …`."""
        return f"tfk_{self.id.hex}_{self.secret}"

    @property
    def secret_hash(self) -> bytes:
        """What is stored. The secret has 256 random bits, so nobody can guess it from its hash."""
        return hashlib.sha256(self.secret.encode("ascii")).digest()

    def proves(self, secret_hash: bytes | None) -> bool:
        """Whether the stored hash is this secret's; takes as long for every answer."""
        return compare_digest(self.secret_hash, secret_hash or _NO_SECRET)


def new_api_key() -> ApiKey:
    """A key with a fresh id and secret."""
    return ApiKey(uuid7(), secrets.token_urlsafe(_SECRET_BYTES))


def looks_like_api_key(text: str) -> bool:
    """Whether the text means to be a key, rather than another kind of token."""
    return text.startswith("tfk_")


def parse_api_key(text: str) -> ApiKey | None:
    """The key; None if the text is not written as one."""
    match = _KEY.fullmatch(text)
    return ApiKey(UUID(match[1]), match[2]) if match else None
