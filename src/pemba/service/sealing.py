"""Encryption of secrets at rest.

A secret is encrypted for its place: the key is made of a root secret, this purpose, and tenant, workspace, namespace
and name (HKDF), so what is moved to another place does not decrypt there.  The first root secret encrypts, all decrypt.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from pemba.errors import PreconditionFailed, Reason
from pemba.tokens import hkdf_sha256

PURPOSE = b"pemba/settings/1"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A secret, encrypted; `under` tells which root secret it took."""

    text: str
    under: str


class Sealer:
    """Seals and opens secrets with the installation's root secrets, of at least 32 bytes each."""

    def __init__(self, root_secrets: Sequence[str]) -> None:
        self._secrets = [hkdf_sha256(secret.encode(), PURPOSE) for secret in root_secrets]
        self.under = hashlib.sha256(self._secrets[0]).hexdigest()[:16]
        """What is sealed now is sealed under this."""

    def seal(self, place: Sequence[str], secret: str) -> Sealed:
        """Encrypt a secret for its place."""
        return Sealed(self._keys(place).encrypt(secret.encode()).decode(), self.under)

    def open(self, place: Sequence[str], sealed: str) -> str:
        """The secret that was sealed for this place.  Raises PreconditionFailed (SECRET_UNREADABLE)."""
        try:
            return self._keys(place).decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise PreconditionFailed(
                Reason.SECRET_UNREADABLE,
                "the secret cannot be decrypted with PEMBA_ROOT_SECRETS as they are now; set it anew",
            ) from None

    def digest(self, data: bytes) -> bytes:
        """A digest of what has secrets in it, which nobody without the root secrets can try guesses against."""
        return hmac.digest(self._secrets[0], b"digest\0" + data, "sha256")

    def _keys(self, place: Sequence[str]) -> MultiFernet:
        info = b"place\0" + json.dumps(list(place)).encode()
        return MultiFernet(Fernet(base64.urlsafe_b64encode(hkdf_sha256(key, info))) for key in self._secrets)
