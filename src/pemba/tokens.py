"""Opaque tokens: consistency tokens, which name positions in PostgreSQL, and page tokens.

A consistency token lists up to 16 (stream, sequence) pairs.  It names what was committed, not a SpiceDB
revision, so it outlives every change or restore of SpiceDB's data.  Layout before base64url (RFC 4648,
without padding)::

    version 1 | key id 4 | database epoch 16 | count 1 | count * (length 1, stream, seq 8) | HMAC-SHA256 / 128 bits

Keys come from the installation's root secrets by HKDF (RFC 5869), one by purpose: the first signs, all verify.
Standard library only, no I/O.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pemba.errors import Reason, invalid_field
from pemba.model import Seq, TenantId

MAX_POSITIONS = 16
MAX_TOKEN_CHARACTERS = 4096
_VERSION = 1
_KEY_ID_BYTES = 4
_MAC_BYTES = 16
_HEADER_BYTES = 1 + _KEY_ID_BYTES + 16 + 1


class Keys:
    """Signing keys for one purpose, from root secrets of at least 32 bytes: the first signs, all verify."""

    def __init__(self, root_secrets: Sequence[bytes], purpose: str) -> None:
        if not root_secrets:
            raise ValueError("at least one root secret is needed")
        keys = [hkdf_sha256(secret, f"pemba/{purpose}/1".encode()) for secret in root_secrets]
        self._by_id = {hashlib.sha256(key).digest()[:_KEY_ID_BYTES]: key for key in keys}
        self.signing_id = hashlib.sha256(keys[0]).digest()[:_KEY_ID_BYTES]

    def mac(self, key_id: bytes, data: bytes) -> bytes | None:
        """The truncated MAC of `data` under that key; None where no such key is known."""
        key = self._by_id.get(key_id)
        return None if key is None else hmac.digest(key, data, "sha256")[:_MAC_BYTES]


def hkdf_sha256(secret: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF (RFC 5869) with SHA-256 and no salt; `length` at most 32 bytes, so one block is all it takes."""
    if not 0 < length <= 32:
        raise ValueError("length takes 1 to 32")
    pseudo_random_key = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(pseudo_random_key, info + b"\x01", "sha256")[:length]


@dataclass(frozen=True, slots=True)
class ConsistencyToken:
    """What a token says: positions (stream to sequence) of one life of the database (its epoch)."""

    database_epoch: uuid.UUID
    positions: Mapping[TenantId, Seq]


def encode_token(keys: Keys, token: ConsistencyToken) -> str:
    """The opaque text.  At most 16 positions; their order does not matter."""
    if not 0 < len(token.positions) <= MAX_POSITIONS:
        raise ValueError(f"a token names 1 to {MAX_POSITIONS} positions")
    body = bytearray([_VERSION])
    body += keys.signing_id + token.database_epoch.bytes
    body.append(len(token.positions))
    for stream, seq in sorted(token.positions.items()):
        name = stream.encode()
        body.append(len(name))
        body += name + seq.to_bytes(8, "big")
    mac = keys.mac(keys.signing_id, bytes(body))
    assert mac is not None
    return base64.urlsafe_b64encode(bytes(body) + mac).rstrip(b"=").decode()


def decode_token(keys: Keys, text: str, field: str = "consistency.at_least_as_fresh") -> ConsistencyToken:
    """What `text` says.  Raises InvalidRequest (TOKEN_INVALID) unless we made it; the MAC is checked first."""
    invalid = invalid_field(field, "is not a token that this installation gave out", Reason.TOKEN_INVALID)
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise invalid
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise invalid from None
    if len(raw) < _HEADER_BYTES + _MAC_BYTES or raw[0] != _VERSION:
        raise invalid
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    expected = keys.mac(body[1 : 1 + _KEY_ID_BYTES], body)
    if expected is None or not hmac.compare_digest(expected, mac):
        raise invalid
    epoch = uuid.UUID(bytes=body[1 + _KEY_ID_BYTES : _HEADER_BYTES - 1])
    return ConsistencyToken(epoch, _positions(body))


def _positions(body: bytes) -> dict[TenantId, Seq]:
    positions: dict[TenantId, Seq] = {}
    at = _HEADER_BYTES
    for _ in range(body[_HEADER_BYTES - 1]):
        end = at + 1 + body[at]
        positions[TenantId(body[at + 1 : end].decode())] = Seq(int.from_bytes(body[end : end + 8], "big"))
        at = end + 8
    return positions


def encode_page_token(keys: Keys, arguments: object, position: Sequence[str]) -> str:
    """A page token: where the page ended, bound to the list's own arguments (AIP-158).

    `arguments` is JSON-able and holds every argument but page_size and page_token.
    """
    body = json.dumps([_fingerprint(arguments), list(position)], separators=(",", ":")).encode()
    mac = keys.mac(keys.signing_id, body)
    assert mac is not None
    return base64.urlsafe_b64encode(keys.signing_id + mac + body).rstrip(b"=").decode()


def decode_page_token(keys: Keys, arguments: object, text: str, field: str = "page_token") -> list[str]:
    """The position in a page token.  Raises InvalidRequest where it is not ours or the arguments changed."""
    invalid = invalid_field(field, "is not a token that this list gave out", Reason.TOKEN_INVALID)
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise invalid from None
    key_id, mac, body = raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:20], raw[20:]
    expected = keys.mac(key_id, body)
    if expected is None or not hmac.compare_digest(expected, mac):
        raise invalid
    fingerprint, position = json.loads(body)
    if fingerprint != _fingerprint(arguments):
        raise invalid_field(field, "belongs to a list with other arguments; start from the first page")
    return [str(part) for part in position]


def _fingerprint(arguments: object) -> str:
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:16]


class Signer:
    """Signs and reads both kinds of token; `database_epoch` is the life of the database that it signs for."""

    def __init__(self, root_secrets: Sequence[str], database_epoch: uuid.UUID) -> None:
        secrets = [secret.encode() for secret in root_secrets]
        self._token_keys = Keys(secrets, "consistency-token")
        self._page_keys = Keys(secrets, "page-token")
        self.database_epoch = database_epoch

    def begin_life(self, database_epoch: uuid.UUID) -> None:
        """From now on it signs for this one."""
        self.database_epoch = database_epoch

    def token(self, positions: Mapping[TenantId, Seq], database_epoch: uuid.UUID | None = None) -> str:
        """A token that names these positions (1 to 16), of that life of the database or (None) the present one."""
        return encode_token(self._token_keys, ConsistencyToken(database_epoch or self.database_epoch, positions))

    def positions(self, token: str) -> ConsistencyToken:
        """What a caller's token says.  Raises InvalidRequest (TOKEN_INVALID)."""
        return decode_token(self._token_keys, token)

    def page_token(self, arguments: object, position: Sequence[str]) -> str:
        """A page token bound to the list's arguments."""
        return encode_page_token(self._page_keys, arguments, position)

    def page_position(self, arguments: object, page_token: str, field: str = "page_token") -> list[str] | None:
        """Where the last page ended; None for the first.  Raises InvalidRequest, which names `field`."""
        return decode_page_token(self._page_keys, arguments, page_token, field) if page_token else None
