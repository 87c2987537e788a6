"""Secrets of invitations: which invitation it is, signed.

The key is one of its own from the installation's root secrets: the first signs, all verify.  Layout before base64url
(RFC 4648, without padding)::

    version 1 | key id 4 | tenant id, `.`, invitation id | HMAC-SHA256 / 128 bits
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit, urlunsplit

from pemba.errors import Reason, invalid_field
from pemba.model import Invitation, InvitationId, TenantId
from pemba.tokens import Keys

MAX_SECRET_CHARACTERS = 256
_VERSION = b"\x01"
_KEY_ID_BYTES = 4
_MAC_BYTES = 16


class InvitationSecrets:
    """Makes and reads them; `base_url` is where an application takes them, empty for nowhere."""

    def __init__(self, root_secrets: Sequence[str], base_url: str = "") -> None:
        self._keys = Keys([secret.encode() for secret in root_secrets], "invitations")
        self._base_url = base_url

    def secret(self, invitation: Invitation) -> str:
        body = _VERSION + self._keys.signing_id + f"{invitation.tenant_id}.{invitation.id}".encode()
        mac = self._keys.mac(self._keys.signing_id, body)
        assert mac is not None
        return base64.urlsafe_b64encode(body + mac).rstrip(b"=").decode()

    def url(self, secret: str) -> str:
        """The base URL with the secret as the parameter `token`; empty without either."""
        if not self._base_url or not secret:
            return ""
        parts = urlsplit(self._base_url)
        query = "&".join(filter(None, (parts.query, urlencode({"token": secret}))))
        return urlunsplit(parts._replace(query=query))

    def read(self, secret: str) -> tuple[TenantId, InvitationId]:
        """Which invitation it is of.  Raises InvalidRequest (TOKEN_INVALID) unless it was made here."""
        invalid = invalid_field("token", "is no invitation's that this installation gave out", Reason.TOKEN_INVALID)
        if len(secret) > MAX_SECRET_CHARACTERS:
            raise invalid
        try:
            raw = base64.b64decode(secret + "=" * (-len(secret) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise invalid from None
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        expected = self._keys.mac(body[1 : 1 + _KEY_ID_BYTES], body)
        if body[:1] != _VERSION or expected is None or not hmac.compare_digest(expected, mac):
            raise invalid
        tenant_id, _, invitation_id = body[1 + _KEY_ID_BYTES :].decode().partition(".")
        return TenantId(tenant_id), InvitationId(invitation_id)
