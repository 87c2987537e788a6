"""Who is calling: system keys, which settings name, API keys, which are records, and users with JWTs of an issuer.

What comes as a bearer is told apart by its looks, once it is no system key; what looks like nothing that this
installation gives out is refused without being looked up.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Protocol

from pemba.errors import Reason, Unauthenticated
from pemba.model import Credential, Scope
from pemba.rpc.limits import Admission
from pemba.service.key_secrets import is_secret

_SCHEME = "bearer "


class SystemKeys:
    """System keys, several valid at once; each has every scope."""

    def __init__(self, keys: Sequence[str]) -> None:
        digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._known = [(d, Credential(f"system_key:{d.hex()[:8]}", frozenset(Scope))) for d in digests]

    def find(self, key: str) -> Credential | None:
        """What the key stands for; None where it is none of these."""
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
        found: Credential | None = None
        for known, credential in self._known:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(known, digest):
                found = credential
        return found


class Secrets(Protocol):
    """Knows what secrets of API keys stand for."""

    def remembers(self, secret: str) -> bool:
        """Whether the answer is there without a look at the records."""

    async def credential(self, secret: str) -> Credential | None:
        """None where there is no such key.  Raises Unauthenticated (KEY_REVOKED, KEY_EXPIRED), Unavailable."""


class Tokens(Protocol):
    """Knows whom JWTs stand for."""

    async def credential(self, token: str) -> Credential | None:
        """None where it is none that is taken.  Raises Unauthenticated (KEY_EXPIRED), NotFound, Unavailable."""


class Authentication:
    """Lets callers in by the metadata `authorization`."""

    def __init__(
        self, system_keys: SystemKeys, api_keys: Secrets, admission: Admission, tokens: Tokens | None = None
    ) -> None:
        self._system_keys = system_keys
        self._api_keys = api_keys
        self._admission = admission
        self._tokens = tokens

    async def authenticate(self, authorization: str, peer: str) -> Credential:
        """The credential of `Bearer KEY`, or of `Bearer JWT`.

        Raises Unauthenticated (KEY_INVALID in the same words whatever is wrong, KEY_REVOKED, KEY_EXPIRED), Unavailable,
        RateLimited, NotFound (a JWT that names a tenant or workspace that is not there).
        """
        is_bearer = authorization[: len(_SCHEME)].lower() == _SCHEME
        key = authorization[len(_SCHEME) :] if is_bearer else ""
        found = self._system_keys.find(key)
        if found is None and is_secret(key):
            if not self._api_keys.remembers(key):
                self._admission.require_known_peer(peer)
            found = await self._api_keys.credential(key)
            if found is None:
                self._admission.note_stranger(peer)
        elif found is None and self._tokens is not None:
            found = await self._tokens.credential(key)
        if found is None:
            raise Unauthenticated(
                Reason.KEY_INVALID,
                "authorization: takes `Bearer KEY` with a key that this installation knows, or the token of an issuer",
            )
        return found
