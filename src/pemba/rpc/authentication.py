"""Who is calling: system keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from pemba.errors import Reason, Unauthenticated
from pemba.model import Scope, TenantId

_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Credential:
    """What a key stands for; `tenant_id` is None where it is not confined to a tenant."""

    principal: str
    scopes: frozenset[Scope]
    tenant_id: TenantId | None = None


class SystemKeys:
    """System keys, several valid at once; each has every scope."""

    def __init__(self, keys: Sequence[str]) -> None:
        digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._known = [(d, Credential(f"system_key:{d.hex()[:8]}", frozenset(Scope))) for d in digests]

    def authenticate(self, authorization: str) -> Credential:
        """The credential of `Bearer KEY`.  Raises Unauthenticated (KEY_INVALID), whatever is wrong with it."""
        scheme, key = authorization[: len(_SCHEME)], authorization[len(_SCHEME) :]
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
        found: Credential | None = None
        for known, credential in self._known:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(known, digest):
                found = credential
        if found is None or scheme.lower() != _SCHEME:
            raise Unauthenticated(
                Reason.KEY_INVALID, "authorization: takes `Bearer KEY` with a key that this installation knows"
            )
        return found
