"""Request context: what a call says in its metadata."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from google.protobuf.message import Message

from pemba.errors import Forbidden, NotFound, Reason, invalid_field
from pemba.model import (
    MAX_REQUEST_ID_CHARACTERS,
    Caller,
    Credential,
    Scope,
    TenantId,
    UserId,
    WorkspaceId,
    is_typeid,
    is_user_id,
)
from pemba.rpc.about import named_in
from pemba.rpc.scopes import require_scope
from pemba.service.mutation import MutationOptions
from pemba.service.preview import Preview

AUTHORIZATION = "authorization"
ON_BEHALF_OF = "pemba-on-behalf-of"
TENANT = "pemba-tenant"
WORKSPACE = "pemba-workspace"
REQUEST_ID = "x-request-id"
_KEYS = frozenset({AUTHORIZATION, ON_BEHALF_OF, TENANT, WORKSPACE, REQUEST_ID})

_PERCENT_ENCODED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*", re.DOTALL)
_USER_PREFIX = "user:"


@dataclass(frozen=True, slots=True)
class Call:
    """One call: who makes it, until when (loop time, seconds), and the tenant and workspace it is confined to."""

    caller: Caller
    method: str
    """The full name, as in `/pemba.v1.TenantService/GetTenant`."""
    deadline: float
    tenant_id: TenantId | None = None
    """Of the metadata, else the one that the credential is confined to."""
    workspace_id: WorkspaceId | None = None
    preview: Preview = field(default_factory=Preview)

    def options(self, request: Message) -> MutationOptions:
        """What the request of a mutation says besides its arguments.  Raises InvalidRequest (request_id)."""
        request_id: str = getattr(request, "request_id", "")
        if len(request_id) > MAX_REQUEST_ID_CHARACTERS or not request_id.isprintable():
            raise invalid_field("request_id", f"takes at most {MAX_REQUEST_ID_CHARACTERS} printable characters")
        return MutationOptions(
            method=self.method.rpartition("/")[2],
            request_id=request_id,
            body_digest=body_digest(self.method, request) if request_id else b"",
            etag=getattr(request, "etag", ""),
            validate_only=getattr(request, "validate_only", False),
            preview=self.preview,
            about=named_in(request),
        )


def body_digest(method: str, request: Message) -> bytes:
    """SHA-256 of the method's full name and of the request without its request_id: the same for the same request."""
    body = type(request)()
    body.CopyFrom(request)
    body.ClearField("request_id")
    return hashlib.sha256(method.encode() + b"\0" + body.SerializeToString(deterministic=True)).digest()


class CallMetadata:
    """Those metadata of a call that Pemba reads; reading one that is malformed raises InvalidRequest naming its key."""

    __slots__ = ("_repeated", "_values")

    def __init__(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._values: dict[str, str] = {}
        self._repeated: set[str] = set()
        for key, value in metadata:
            if key in _KEYS and isinstance(value, str):
                if key in self._values:
                    self._repeated.add(key)
                self._values[key] = value

    def request_id(self) -> str:
        """The caller's own, where it is printable and of 1 to 128 characters; else a new one."""
        given = self._values.get(REQUEST_ID, "")
        if 0 < len(given) <= MAX_REQUEST_ID_CHARACTERS and given.isprintable():
            return given
        return uuid.uuid4().hex

    def authorization(self) -> str:
        """Empty where there is none.  Raises InvalidRequest where there are several."""
        return self._once(AUTHORIZATION) or ""

    def acting_user(self) -> UserId | None:
        """The user of `pemba-on-behalf-of: user:ID`."""
        text = self._decoded(ON_BEHALF_OF)
        if text is None:
            return None
        user_id = text.removeprefix(_USER_PREFIX)
        if not text.startswith(_USER_PREFIX) or not is_user_id(user_id):
            raise invalid_field(ON_BEHALF_OF, "takes `user:` and a user id, percent-encoded")
        return UserId(user_id)

    def tenant_id(self) -> TenantId | None:
        """The tenant that the call is confined to."""
        text = self._decoded(TENANT)
        if text is not None and not is_typeid("ten", text):
            raise invalid_field(TENANT, "takes a tenant id, `ten_...`")
        return None if text is None else TenantId(text)

    def workspace_id(self) -> WorkspaceId | None:
        """The workspace that the call is confined to."""
        text = self._decoded(WORKSPACE)
        if text is not None and not is_typeid("ws", text):
            raise invalid_field(WORKSPACE, "takes a workspace id, `ws_...`")
        return None if text is None else WorkspaceId(text)

    def _once(self, key: str) -> str | None:
        if key in self._repeated:
            raise invalid_field(key, "is given twice")
        return self._values.get(key)

    def _decoded(self, key: str) -> str | None:
        text = self._once(key)
        if text is None:
            return None
        if not _PERCENT_ENCODED.fullmatch(text):
            raise invalid_field(key, "takes percent-encoded text: %XX with two hexadecimal digits")
        try:
            return unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            raise invalid_field(key, "takes percent-encoded UTF-8") from None


def caller_of(credential: Credential, metadata: CallMetadata, request_id: str, peer: str) -> Caller:
    """Who is calling, and for whom.  Raises Forbidden (SCOPE_MISSING) where the key may not act for that user."""
    return Caller(
        principal=credential.principal,
        scopes=credential.scopes,
        acting_user=_acting_user(credential, metadata.acting_user()),
        tenant_id=credential.tenant_id,
        request_id=request_id,
        peer=peer,
        workspace_id=credential.workspace_id,
        verified_email=credential.verified_email,
        vouches=credential.is_system,
    )


def _acting_user(credential: Credential, asked: UserId | None) -> UserId | None:
    if credential.user_id is None:
        if asked is not None:
            require_scope(credential.scopes, Scope.ACT_AS)
        return asked
    if asked not in (None, credential.user_id):
        raise Forbidden(Reason.SCOPE_MISSING, "a user's key acts for its user and nobody else", {"scope": Scope.ACT_AS})
    return credential.user_id


def confined_to(caller: Caller, named: TenantId | None) -> TenantId | None:
    """The tenant that a call is about where its message names none: the metadata's, else the credential's.

    Raises NotFound where the credential is confined to another one.
    """
    require_own_tenant(caller, named or "")
    return named or caller.tenant_id


def require_own_tenant(caller: Caller, named: str) -> None:
    """Raises NotFound where the caller is confined to another tenant than the one named, whether there is one or not.

    What is no tenant's id is refused by its field.
    """
    if caller.tenant_id is not None and is_typeid("ten", named) and named != caller.tenant_id:
        raise NotFound(f"tenant {named}")
