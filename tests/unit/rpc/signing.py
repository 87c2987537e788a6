"""An issuer of the tests: keys made here, tokens signed with them, and its JWKS from a server on 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER, AUDIENCE = "https://id.acme.test/", "pemba"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
SIGNING: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}
_KINDS: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


def jwk(algorithm: str, key: Any = None, **said: str) -> dict[str, Any]:
    """The public key of this one, by the name of the algorithm that signs with it."""
    data = _KINDS[algorithm].to_jwk((key or SIGNING[algorithm]).public_key(), as_dict=True)
    data.pop("key_ops", None)
    return {**data, "kid": algorithm, **said}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys or [jwk(algorithm) for algorithm in SIGNING]}).encode()


def claims(**changed: Any) -> dict[str, Any]:
    """Those of a good token, changed; None takes one away."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now + 300, "iat": now, **changed}
    return {name: value for name, value in good.items() if value is not None}


def token(algorithm: str = "RS256", key: Any = None, headers: dict[str, Any] | None = None, **changed: Any) -> str:
    said = {"kid": algorithm, **(headers or {})}
    return jwt.encode(claims(**changed), key or SIGNING[algorithm], algorithm, headers=said)


class JwksServer:
    """Answers every request with `body`; counts them."""

    def __init__(self) -> None:
        self.body = jwks()
        self.status = "200 OK"
        self.headers = ""
        self.asked = 0
        self.arrived = asyncio.Semaphore(0)
        self.endless = False
        self.silent = asyncio.Event()
        self.silent.set()
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            self.arrived.release()
            await self.silent.wait()
            length = 10**12 if self.endless else len(self.body)
            writer.write(f"HTTP/1.1 {self.status}\r\n{self.headers}content-length: {length}\r\n\r\n".encode())
            writer.write(self.body)
            while self.endless:
                writer.write(b" " * 65536)
                await writer.drain()
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving_jwks() -> AsyncIterator[JwksServer]:
    served = JwksServer()
    server = await asyncio.start_server(served.answer, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    try:
        yield served
    finally:
        served.silent.set()
        server.close()
        await server.wait_closed()
