"""Issuers of JWTs that this installation trusts: a JSON file with a list of them, the primary one among them.

Users keep the id of their identity provider.  So that none of them can name a user of another one, all but the primary
issuer have a prefix, no prefix begins with another, and what the primary issuer calls its users begins with none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import permutations
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pemba.errors import ConfigError
from pemba.model import Scope

SETTING = "PEMBA_JWT_ISSUERS_FILE"

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures with a public key: `none` is none of them, nor is what is verified with the key that signs."""
GivenScope = Literal[Scope.CHECK, Scope.READ, Scope.WRITE, Scope.ADMIN]
Claim = Annotated[str, Field(min_length=1, max_length=256)]


class Issuer(BaseModel):
    """One issuer, as the file has it; docs/operating.md tells of each field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Claim
    audience: Claim
    algorithms: frozenset[Algorithm] = Field(min_length=1)
    jwks_file: Path | None = None
    jwks_url: str = ""
    user_prefix: str = Field("", max_length=64)
    """Empty for the primary issuer alone."""
    scopes: frozenset[GivenScope] = frozenset({Scope.CHECK, Scope.READ, Scope.WRITE})
    """What its tokens are good for at the most."""
    trust_email: bool | None = None
    """Whether `email` is believed where `email_verified` is true; None: of the primary issuer."""
    scope_claim: Claim | None = None
    """A claim that takes some of these away: those count that it names, and no others."""
    tenant_claim: Claim | None = None
    workspace_claim: Claim | None = None
    jwks_refresh_seconds: float = Field(300, ge=1, le=86400, allow_inf_nan=False)
    """How often the keys are had again, before anybody waits for them."""
    jwks_keep_seconds: float = Field(3600, ge=1, le=604800, allow_inf_nan=False)
    """How long keys are good where they cannot be had again."""

    @property
    def is_trusted_with_emails(self) -> bool:
        return not self.user_prefix if self.trust_email is None else self.trust_email

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.jwks_file is None) == (not self.jwks_url):
            raise ValueError("takes one of jwks_file and jwks_url")
        if self.jwks_url and not _is_safe(self.jwks_url):
            raise ValueError("jwks_url: takes https://, or http:// of a loopback address")
        if self.workspace_claim and not self.tenant_claim:
            raise ValueError("workspace_claim: takes tenant_claim as well")
        if self.jwks_keep_seconds < self.jwks_refresh_seconds:
            raise ValueError("jwks_keep_seconds: takes no less than jwks_refresh_seconds")
        if not self.user_prefix.isprintable() or self.user_prefix != self.user_prefix.strip():
            raise ValueError("user_prefix: takes printable characters, no blank at either end")
        return self


_ISSUERS = TypeAdapter(list[Issuer])


def read_issuers(path: Path | None) -> tuple[Issuer, ...]:
    """What the file says; none without one.  Raises ConfigError."""
    if path is None:
        return ()
    try:
        issuers = _ISSUERS.validate_python(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise ConfigError(f"{SETTING}: cannot read {path}: {error}") from error
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{SETTING}: {path}: {where}: {first['msg'].removeprefix('Value error, ')}") from error
    _require_apart(path, issuers)
    return tuple(issuers)


def _require_apart(path: Path, issuers: Sequence[Issuer]) -> None:
    for one, other in permutations(issuers, 2):
        if one.issuer == other.issuer:
            raise ConfigError(f"{SETTING}: {path}: {one.issuer} is there twice")
        if one.user_prefix == other.user_prefix:
            raise ConfigError(
                f"{SETTING}: {path}: every issuer but the primary one takes a user_prefix of its own: {other.issuer}"
            )
        if one.user_prefix and other.user_prefix.startswith(one.user_prefix):
            raise ConfigError(
                f"{SETTING}: {path}: no user_prefix begins with another: {one.user_prefix}, {other.user_prefix}"
            )


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.username is not None or not host or parts.port == 0:
            return False
        return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
