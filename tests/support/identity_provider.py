"""An identity provider: tokens that it signs, and its public keys in a file or behind https."""

import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://id.example.org", "taskforge"

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
"""Nothing that it signs is to be taken unless a test shows it as a key of the provider."""

SKEW_SECONDS = 10
"""So much later than it says a token ends, since clocks differ."""

_HOST = "127.0.0.1"


def jwks(**keys: Any) -> str:
    """The provider's document: public keys by id."""
    documents = []
    for key_id, key in keys.items():
        algorithm = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
        name = "RS256" if algorithm is RSAAlgorithm else "ES256"
        documents.append(
            json.loads(algorithm.to_jwk(key.public_key())) | {"kid": key_id, "alg": name}
        )
    return json.dumps({"keys": documents})


def token(
    key: Any = RSA_KEY, key_id: str = "rsa", algorithm: str = "RS256", **claims: object
) -> str:
    """A token of ann, of the organisation acme, for a minute; a claim that is None is left out."""
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "exp": time.time() + 60,
        "organisation": "acme",
        "scope": "openid job:write job:read",
    } | claims
    return jwt.encode(
        {name: value for name, value in said.items() if value is not None},
        key,
        algorithm=algorithm,
        headers={"kid": key_id},
    )


def signed_with_the_public_key(**claims: object) -> str:
    """The public key, which everybody knows, taken for a shared secret."""
    document = json.loads(jwks(rsa=RSA_KEY))["keys"][0]
    secret = (document["n"] + document["e"]).ljust(64, "x")
    return token(secret, "rsa", "HS256", **claims)


WRONG: dict[str, Callable[[], str]] = {
    "signed by a stranger": lambda: token(STRANGER),
    "signed by an unknown key": lambda: token(STRANGER, "unknown"),
    "signed with another algorithm than its key's": lambda: token(EC_KEY, "rsa", "ES256"),
    "signed with an algorithm that is not allowed": lambda: token(algorithm="RS512"),
    "not signed": lambda: token("", "rsa", "none"),
    "signed with the public key": signed_with_the_public_key,
    "signed by a key without an id": lambda: token(key_id=""),
    "of another issuer": lambda: token(iss="https://evil.example.org"),
    "for another audience": lambda: token(aud="other"),
    "without an audience": lambda: token(aud=None),
    "without an issuer": lambda: token(iss=None),
    "without an end": lambda: token(exp=None),
    "without a subject": lambda: token(sub=None),
    "not valid yet": lambda: token(nbf=time.time() + 3600),
    "of an unknown organisation": lambda: token(organisation="nobody"),
    "of an organisation that is a number": lambda: token(organisation=7),
    "without an organisation": lambda: token(organisation=None),
    "of a project that is no id": lambda: token(project="default"),
    "of permissions that are a number": lambda: token(scope=5),
    "changed": lambda: token()[:-10] + "AAAAAAAAAA",
    "no token": lambda: "a.b.c",
    "no header": lambda: ".." + token(),
}
"""Tokens that are nobody's, each by what is wrong with it. The provider's keys are `rsa`, `ec`."""


class KeysFile:
    """The provider's keys as a file."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "jwks.json"
        self.source = str(self._file)

    def show(self, **keys: Any) -> None:
        self._file.write_text(jwks(**keys))

    def stop(self) -> None:
        """Nobody can have the keys."""
        self._file.unlink()


class KeysServer:
    """The provider's keys behind https, with a certificate of an authority of its own."""

    def __init__(self, folder: Path) -> None:
        """Begin to serve; `folder` is for the authority's certificate."""
        authority = trustme.CA()
        self.authority = folder / "authority.pem"
        """What a client must trust."""
        authority.cert_pem.write_to_path(self.authority)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(_HOST).configure_cert(self._context)
        self._document = jwks()
        self.answering = threading.Event()
        """While it is not set, calls are taken and wait for their answer."""
        self.answering.set()
        self.called = threading.Event()
        """Set by each call."""
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()
        self.source = f"https://{_HOST}:{self._port}/jwks.json"

    def show(self, **keys: Any) -> None:
        self._document = jwks(**keys)

    def start(self) -> None:
        """Serve again where it did before."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                provider.called.set()
                provider.answering.wait()
                body = provider._document.encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = server = ThreadingHTTPServer((_HOST, self._port), Handler)
        self._port = server.server_port
        server.socket = self._context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Nobody can have the keys."""
        if self._server is not None:
            self.answering.set()
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
