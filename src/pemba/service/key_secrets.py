"""Secrets of API keys: `pemba_`, 8 characters that everybody may see, and 32 random bytes that nobody may.

Of a secret only its hash is kept: SHA-256 of all of it, as callers send it.  It needs no salt and no slow hash, being
256 random bits.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field

RANDOM_BYTES = 32

_SECRET = re.compile(r"pemba_[0-9a-f]{8}_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A new one: what its owner gets, once, and what is kept."""

    text: str = field(repr=False)
    prefix: str

    @property
    def hash(self) -> bytes:
        return hash_of(self.text)


def new_secret() -> Secret:
    prefix = f"pemba_{secrets.token_hex(4)}"
    return Secret(f"{prefix}_{secrets.token_urlsafe(RANDOM_BYTES)}", prefix)


def is_secret(text: str) -> bool:
    """Whether it has the shape of one."""
    return _SECRET.fullmatch(text) is not None


def hash_of(text: str) -> bytes:
    """What is stored of a secret, and what it is found by."""
    return hashlib.sha256(text.encode()).digest()
