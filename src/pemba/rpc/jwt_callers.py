"""Callers who come with a JWT (RFC 7519): users of the issuers that settings name, never more than a user.

The issuer that a token names decides by which keys and algorithms it is verified, and nothing else that is in it:
headers that bring keys, or say where some are (`jwk`, `jku`, `x5c`, `x5u`), are not looked at.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from typing import Any, Protocol

import jwt
import structlog

from pemba.errors import Reason, Unauthenticated
from pemba.model import Credential, Scope, TenantId, UserId, WorkspaceId, is_email, is_user_id
from pemba.rpc.issuers import Issuer
from pemba.rpc.jwks import IssuerKeys
from pemba.telemetry import Event

MAX_TOKEN_CHARACTERS = 8192
MAX_CLAIM_CHARACTERS = 2048
LEEWAY_SECONDS = 60
"""By how much the issuer's clock may differ."""

_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

log = structlog.get_logger()


class Places(Protocol):
    """Finds what the claims of a token name."""

    async def find(self, tenant: str, workspace: str) -> tuple[TenantId, WorkspaceId | None]:
        """By id, or by slug and path.  Raises NotFound, Unavailable."""


class JwtCallers:
    """Knows whom a JWT stands for; `run` it beside."""

    def __init__(self, issuers: Sequence[Issuer], places: Places) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._keys = {issuer.issuer: IssuerKeys(issuer) for issuer in issuers}
        self._prefixes = [issuer.user_prefix for issuer in issuers if issuer.user_prefix]
        self._places = places

    async def run(self) -> None:
        """Have the issuers' keys, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for keys in self._keys.values():
                group.create_task(keys.run())

    async def credential(self, token: str) -> Credential | None:
        """None for what is no token of an issuer that is known, or is not as it must be.

        Raises Unauthenticated (KEY_EXPIRED), NotFound for a tenant or workspace that its claims name and that is not
        there, Unavailable where the issuer's keys or the records cannot be had.
        """
        if not self._issuers or len(token) > MAX_TOKEN_CHARACTERS or not _JWT.fullmatch(token):
            return None
        try:
            issuer, claims = await self._verified(token)
            user_id = self._user_id(issuer, claims)
            scopes = _scopes(issuer, claims)
            tenant, workspace = _text(claims, issuer.tenant_claim), _text(claims, issuer.workspace_claim)
            if workspace and not tenant:
                raise ValueError("names a workspace, and no tenant")
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated(Reason.KEY_EXPIRED, "authorization: the token has expired") from error
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            log.debug(Event.JWT_REFUSED, error=repr(error))
            return None
        tenant_id, workspace_id = await self._places.find(tenant, workspace) if tenant else (None, None)
        email = _verified_email(issuer, claims)
        return Credential(f"jwt:{user_id}", scopes, tenant_id, workspace_id, user_id, email)

    async def _verified(self, token: str) -> tuple[Issuer, dict[str, Any]]:
        header, named = _unverified(token)
        issuer = self._issuers.get(named)
        key_id, algorithm = header.get("kid"), header.get("alg")
        if issuer is None or algorithm not in issuer.algorithms or not isinstance(key_id, str):
            raise ValueError("no issuer, key id or algorithm that is taken")
        key = await self._keys[issuer.issuer].find(key_id, algorithm)
        if key is None:
            raise ValueError("a key that its issuer does not have")
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=issuer.audience,
            issuer=issuer.issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["iss", "aud", "exp", "sub"], "enforce_minimum_key_length": True},
        )
        return issuer, claims

    def _user_id(self, issuer: Issuer, claims: dict[str, Any]) -> UserId:
        """Raises ValueError where it cannot be a user's id, or would be one of another issuer."""
        user_id = f"{issuer.user_prefix}{claims['sub']}"
        if not claims["sub"] or not is_user_id(user_id):
            raise ValueError("sub: is no user's id")
        if not issuer.user_prefix and any(user_id.startswith(prefix) for prefix in self._prefixes):
            raise ValueError("sub: begins as another issuer's users do")
        return UserId(user_id)


def _unverified(token: str) -> tuple[dict[str, Any], str]:
    """The header, and the issuer that the token names: what to verify it by.  Raises ValueError, PyJWTError."""
    header = jwt.get_unverified_header(token)
    body = token.split(".")[1]
    claims = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    named = claims.get("iss") if isinstance(claims, dict) else None
    if not isinstance(named, str):
        raise ValueError("iss: takes text")
    return header, named


def _scopes(issuer: Issuer, claims: dict[str, Any]) -> frozenset[Scope]:
    """Those of the setting; where a claim is to name them, those of them that it names."""
    allowed: frozenset[Scope] = frozenset(issuer.scopes)
    if issuer.scope_claim is None:
        return allowed
    named = claims.get(issuer.scope_claim, ())
    words = named.split() if isinstance(named, str) else named
    return frozenset(scope for scope in allowed if isinstance(words, (list, tuple)) and scope in words)


def _verified_email(issuer: Issuer, claims: dict[str, Any]) -> str:
    email = claims.get("email")
    is_shown = issuer.is_trusted_with_emails and claims.get("email_verified") is True
    return email if is_shown and isinstance(email, str) and is_email(email) else ""


def _text(claims: dict[str, Any], claim: str | None) -> str:
    """Empty where there is none.  Raises ValueError for what names nothing: it must not read as no restriction."""
    if claim is None or claim not in claims:
        return ""
    text = claims[claim]
    if not isinstance(text, str) or not 0 < len(text) <= MAX_CLAIM_CHARACTERS or not text.isprintable():
        raise ValueError(f"{claim}: takes text")
    return text
