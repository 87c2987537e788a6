"""The public keys of an issuer (JWKS, RFC 7517), from a file or a URL.

They are had again before anybody waits for them, in the background.  A key that is not known makes one more attempt,
at most one in 30 seconds, however many tokens name unknown keys.  Where the issuer's keys cannot be had, those of the
last time stay good for as long as the issuer's setting says.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pemba.errors import ConfigError, Reason, Unavailable
from pemba.rpc.issuers import SETTING, Issuer
from pemba.telemetry import Event

MAX_BYTES = 256 * 1024
MAX_KEYS = 100
MIN_RSA_BITS = 2048
FETCH_SECONDS = 5.0
UNKNOWN_SECONDS = 30.0
"""At most one attempt in so many seconds for the sake of a key that is not known."""
RETRY_SECONDS = 10.0
MAX_WAITING = 100

_FAMILIES: dict[tuple[str, str | None], tuple[str, ...]] = {
    ("RSA", None): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}

Keys = Mapping[tuple[str, str], jwt.PyJWK]
"""By key id and algorithm: a key is good for no other."""

log = structlog.get_logger()


def parse_keys(body: bytes, issuer: Issuer) -> Keys:
    """The keys for signatures by the issuer's algorithms; what else is there is left out.  Raises ValueError."""
    try:
        document = json.loads(body)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError(f"takes an object whose `keys` are a list of at most {MAX_KEYS}")
    return {
        (data["kid"], algorithm): key
        for data in listed
        for algorithm in _algorithms_of(data, issuer)
        if (key := _key(data, algorithm)) is not None
    }


def _algorithms_of(data: Any, issuer: Issuer) -> Iterator[str]:
    if not isinstance(data, dict) or not isinstance(data.get("kid"), str) or data.get("use", "sig") != "sig":
        return
    kind, curve = data.get("kty"), data.get("crv")
    if isinstance(kind, str) and (curve is None or isinstance(curve, str)):
        for algorithm in _FAMILIES.get((kind, curve), ()):
            if algorithm in issuer.algorithms and data.get("alg", algorithm) == algorithm:
                yield algorithm


def _key(data: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    """None where it is a private key, is malformed, or is weak."""
    try:
        key = jwt.PyJWK(data, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if "d" in data or (isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS):
        return None
    return key


def require_readable(issuers: Iterable[Issuer]) -> None:
    """Raises ConfigError where a file is no JWKS; what comes from a URL is had while the server runs."""
    for issuer in issuers:
        if issuer.jwks_file is not None:
            try:
                keys = parse_keys(_read(issuer.jwks_file), issuer)
            except (OSError, ValueError) as error:
                raise ConfigError(f"{SETTING}: jwks_file {issuer.jwks_file}: {error}") from error
            if not keys:
                raise ConfigError(f"{SETTING}: jwks_file {issuer.jwks_file}: holds no key of the issuer's algorithms")


class IssuerKeys:
    """What is known of one issuer's keys; `run` it beside."""

    def __init__(
        self,
        issuer: Issuer,
        *,
        unknown_seconds: float = UNKNOWN_SECONDS,
        fetch_seconds: float = FETCH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._unknown_seconds = unknown_seconds
        self._fetch_seconds = fetch_seconds
        self._clock = clock
        self._keys: Keys = {}
        self._had: float | None = None
        """When they were last had."""
        self._asked: float | None = None
        """When that was last attempted."""
        self._fetching: asyncio.Task[bool] | None = None
        self._waiting = 0

    async def find(self, key_id: str, algorithm: str) -> jwt.PyJWK | None:
        """None where the issuer has no such key.  Raises Unavailable where its keys are not known."""
        key = self._known().get((key_id, algorithm))
        if key is None and self._may_ask():
            await self._wait()
            key = self._known().get((key_id, algorithm))
        if key is None and self._is_too_old():
            raise Unavailable(
                Reason.ISSUER_UNAVAILABLE,
                "authorization: the keys of the token's issuer cannot be had",
                retry_seconds=5,
            )
        return key

    async def refresh(self) -> bool:
        """Have the keys again, with all others who wait for that; whether it worked."""
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._refresh(), name="jwks")
        return await asyncio.shield(self._fetching)

    async def run(self) -> None:
        """Have them again and again, until cancelled."""
        every = self._issuer.jwks_refresh_seconds
        try:
            while True:
                worked = await self.refresh()
                await asyncio.sleep(every if worked else min(every, RETRY_SECONDS))
        finally:
            if self._fetching is not None:
                self._fetching.cancel()

    async def _wait(self) -> None:
        """Who comes with unknown keys must not fill the server while an issuer is slow."""
        if self._waiting >= MAX_WAITING:
            raise Unavailable(Reason.OVERLOADED, "too many callers wait for the keys of the token's issuer")
        self._waiting += 1
        try:
            await self.refresh()
        finally:
            self._waiting -= 1

    def _known(self) -> Keys:
        return {} if self._is_too_old() else self._keys

    def _is_too_old(self) -> bool:
        return self._had is None or self._clock() - self._had > self._issuer.jwks_keep_seconds

    def _may_ask(self) -> bool:
        under_way = self._fetching is not None and not self._fetching.done()
        return under_way or self._asked is None or self._clock() - self._asked >= self._unknown_seconds

    async def _refresh(self) -> bool:
        began = self._asked = self._clock()
        try:
            async with asyncio.timeout(self._fetch_seconds):
                body = await self._fetch()
            self._keys, self._had = parse_keys(body, self._issuer), began
        except (OSError, ValueError, TimeoutError, httpx.HTTPError, httpx.InvalidURL) as error:
            log.warning(Event.JWKS_NOT_RENEWED, issuer=self._issuer.issuer, error=repr(error))
            return False
        return True

    async def _fetch(self) -> bytes:
        if self._issuer.jwks_file is not None:
            body = await asyncio.to_thread(_read, self._issuer.jwks_file)
        else:
            body = await _download(self._issuer.jwks_url)
        if len(body) > MAX_BYTES:
            raise ValueError(f"takes at most {MAX_BYTES} bytes")
        return body


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


async def _download(url: str) -> bytes:
    """At most a byte more than is taken; a redirect is no answer, and no proxy is asked."""
    body = b""
    context = await asyncio.to_thread(ssl.create_default_context)  # reads files
    async with (
        httpx.AsyncClient(verify=context, trust_env=False, follow_redirects=False, timeout=FETCH_SECONDS) as client,
        client.stream("GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"answered {answer.status_code}")
        async for part in answer.aiter_raw():
            body += part
            if len(body) > MAX_BYTES:
                break
    return body
