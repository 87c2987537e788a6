"""The domain's types: ids, records, callers, scopes, and the tuples that records project to.

Standard library only, no I/O: every other package may import it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

TenantId = NewType("TenantId", str)
WorkspaceId = NewType("WorkspaceId", str)
UserId = NewType("UserId", str)
ShareId = NewType("ShareId", str)
GroupId = NewType("GroupId", str)
ApiKeyId = NewType("ApiKeyId", str)
InvitationId = NewType("InvitationId", str)
Seq = NewType("Seq", int)
"""A position in one tenant's stream: 1, 2, 3 ... without a gap, in commit order; 0 is before the first."""

SHARDS = 16
"""Lanes of delivery, fixed when a database is installed."""

MAX_WORKSPACE_DEPTH = 20
"""Levels of a tree, the root being level 1: well inside SpiceDB's dispatch depth of 50."""

MAX_GROUP_DEPTH = 10
"""Groups in groups, the outermost being level 1: below the deepest workspace still inside that depth."""

MAX_USER_ID_BYTES = 256
MAX_EXTERNAL_ID_CHARACTERS = 256
MAX_NAME_CHARACTERS = 200
MAX_SECRET_BYTES = 8192
MAX_SETTING_LEVELS = 10
MAX_EMAIL_BYTES = 320
MAX_REQUEST_ID_CHARACTERS = 128

GLOBAL_STREAM = TenantId("~")
"""The stream of what belongs to no tenant: rows without operations."""

_TYPEID_SUFFIX = r"[0-7][0-9a-hjkmnp-tv-z]{25}"
_TYPEIDS = {prefix: re.compile(f"{prefix}_{_TYPEID_SUFFIX}") for prefix in ("ten", "ws", "grp", "key", "shr", "inv")}
_SLUG = re.compile(r"[a-z0-9][a-z0-9-]{1,62}[a-z0-9]")
SLUG_RULE = "takes 3 to 64 of a-z, 0-9 and -, with a letter or digit first and last"
RESERVED_SLUGS = frozenset(
    {"admin", "api", "app", "auth", "default", "global", "health", "internal", "login", "logout", "me", "new",
     "null", "pemba", "public", "root", "settings", "static", "status", "support", "system", "undefined", "www"}
)  # fmt: skip


def is_typeid(prefix: str, value: str) -> bool:
    """Whether `value` is a TypeID (jetify's TypeID 0.3: prefix, underscore, 26 characters of base32) of `prefix`."""
    return _TYPEIDS[prefix].fullmatch(value) is not None


def is_slug(value: str) -> bool:
    """Whether `value` has the shape of a slug; reserved words are another question."""
    return _SLUG.fullmatch(value) is not None


def is_setting_namespace(value: str) -> bool:
    """Whether `value` can name a namespace of settings: 1 to 64 of a-z, 0-9, `_`, `-` and `.`, with a letter first."""
    return re.fullmatch(r"[a-z][a-z0-9_.-]{0,63}", value) is not None


def is_setting_name(value: str) -> bool:
    """Whether `value` can name a setting: 1 to 128 of A-Z, a-z, 0-9, `_`, `-` and `.`, with a letter first."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]{0,127}", value) is not None


def is_user_id(value: str) -> bool:
    """Whether `value` can be a user's id: printable, 1 to 256 bytes of UTF-8, no blank at either end."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= MAX_USER_ID_BYTES and value.isprintable() and value == value.strip()


def is_email(value: str) -> bool:
    """Whether `value` can be an email address: printable, at most 320 bytes, one @ with something on either side."""
    local, _, domain = value.rpartition("@")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return False
    return (
        bool(local and domain)
        and "@" not in local
        and value.isprintable()
        and not any(character.isspace() for character in value)
        and size <= MAX_EMAIL_BYTES
    )


class Role(StrEnum):
    """A role as records hold it; order is `rank`, not the alphabet."""

    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"


TENANT_ROLES = (Role.MEMBER, Role.ADMIN)
WORKSPACE_ROLES = (Role.VIEWER, Role.MEMBER, Role.ADMIN, Role.OWNER)
SHARE_ROLES = (Role.VIEWER, Role.MEMBER, Role.ADMIN)


class Permission(StrEnum):
    """What a check asks about, as schema.zed names it."""

    VIEW = "view"
    EDIT = "edit"
    ADMINISTER = "administer"
    OWN = "own"

    @property
    def rank(self) -> int:
        """1 for `view` up to 4 for `own`: each includes those below it."""
        return _PERMISSION_RANK[self]


_PERMISSION_RANK = {Permission.VIEW: 1, Permission.EDIT: 2, Permission.ADMINISTER: 3, Permission.OWN: 4}

ROLE_PERMISSION = {
    Role.VIEWER: Permission.VIEW,
    Role.MEMBER: Permission.EDIT,
    Role.ADMIN: Permission.ADMINISTER,
    Role.OWNER: Permission.OWN,
}
"""The permission that a role on a workspace gives there and below."""

PERMISSIONS: dict[str, tuple[str, ...]] = {
    "tenant": ("administer", "view"),
    "workspace": ("own", "administer", "edit", "view"),
}
"""The types that can be asked about, with their permissions."""


class UserStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"


class TenantStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"


class WorkspaceKind(StrEnum):
    ROOT = "root"
    SHARED = "shared"
    PERSONAL = "personal"


class InvitationStatus(StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    DECLINED = "declined"
    REVOKED = "revoked"
    EXPIRED = "expired"


class Scope(StrEnum):
    """What a caller's credential is good for; none implies another."""

    CHECK = "check"
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    ACT_AS = "act_as"


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object as callers name it, `workspace:ws_...` in text."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}:{self.id}"


@dataclass(frozen=True, slots=True)
class SubjectRef:
    """A subject as callers name it, `user:alice` or `group:grp_...#member` in text."""

    type: str
    id: str
    relation: str = ""

    def __str__(self) -> str:
        return f"{self.type}:{self.id}" + (f"#{self.relation}" if self.relation else "")


@dataclass(frozen=True, slots=True)
class User:
    """A person, global to the installation; the id is the identity provider's."""

    id: UserId
    email: str
    """Empty for none."""
    display_name: str
    status: UserStatus
    activating: bool
    """Suspended still, while their tuples come back; the status follows them."""
    last_login_time: datetime | None
    create_time: datetime
    update_time: datetime
    etag: str

    @property
    def has_tuples(self) -> bool:
        """Whether their roles project: while they are active, and from the moment when they begin to be."""
        return self.status is UserStatus.ACTIVE or self.activating


@dataclass(frozen=True, slots=True)
class Tenant:
    id: TenantId
    slug: str
    name: str
    status: TenantStatus
    create_time: datetime
    update_time: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class DeletionCount:
    """Of one kind of records, by the name of its table: how many there were, and how many are left."""

    records: str
    total: int
    left: int


@dataclass(frozen=True, slots=True)
class TenantDeletion:
    """A tenant that was deleted; `finish_time` is when no record of it was left.

    `undelivered` counts the rows of its stream that SpiceDB does not have yet.
    """

    tenant_id: TenantId
    slug: str
    name: str
    create_time: datetime
    finish_time: datetime | None
    counts: tuple[DeletionCount, ...]
    undelivered: int = 0


@dataclass(frozen=True, slots=True)
class Workspace:
    """A node of a tenant's tree; `parent_id` is None for the root alone (and for personal workspaces)."""

    tenant_id: TenantId
    id: WorkspaceId
    parent_id: WorkspaceId | None
    slug: str
    name: str
    kind: WorkspaceKind
    archive_time: datetime | None
    archived_with: WorkspaceId | None
    """The workspace whose archiving took this one along (itself, where it was the one named)."""
    creator_id: UserId | None
    create_time: datetime
    update_time: datetime
    etag: str
    personal_user_id: UserId | None = None
    """Whose it is, where it is personal; None for every other kind."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A role of a subject on the tenant (`workspace_id` None) or on a workspace."""

    tenant_id: TenantId
    workspace_id: WorkspaceId | None
    subject: SubjectRef
    role: Role
    join_time: datetime
    update_time: datetime
    invited_by: UserId | None
    etag: str

    @property
    def object(self) -> ObjectRef:
        if self.workspace_id is None:
            return ObjectRef("tenant", self.tenant_id)
        return ObjectRef("workspace", self.workspace_id)


@dataclass(frozen=True, slots=True)
class Share:
    """A role on a workspace for the roster of another one of the tenant: its direct members, and nobody else."""

    tenant_id: TenantId
    id: ShareId
    workspace_id: WorkspaceId
    with_workspace_id: WorkspaceId
    role: Role
    """Viewer, member or admin."""
    expire_time: datetime | None
    """UTC, in whole seconds; from then on it gives nothing.  None: never."""
    created_by: UserId | None
    create_time: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class SecretSetting:
    """That there is a secret setting; what it is, is for who asks for it by name."""

    name: str
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Settings:
    """What a workspace has set in one namespace."""

    tenant_id: TenantId
    workspace_id: WorkspaceId
    namespace: str
    values: Mapping[str, Any]
    """JSON by name."""
    secrets: tuple[SecretSetting, ...]
    update_time: datetime | None
    """When one was last set; None where nothing is."""
    etag: str


@dataclass(frozen=True, slots=True)
class Group:
    """A tenant's group of users and of other groups: what it may do, all in it may."""

    tenant_id: TenantId
    id: GroupId
    slug: str
    name: str
    external_id: str
    """What another system, an identity provider, calls it; empty for none."""
    create_time: datetime
    update_time: datetime
    etag: str
    """Changes with the direct members, too."""


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A direct member of a group: a user, or another group with all in it."""

    tenant_id: TenantId
    group_id: GroupId
    subject: SubjectRef
    manager: bool
    """Whether this user also changes the group and its members."""
    join_time: datetime
    added_by: UserId | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What a caller authenticates with; its secret is a hash in storage, and no field of any record."""

    id: ApiKeyId
    tenant_id: TenantId | None
    """What it is confined to; None for none."""
    user_id: UserId | None
    """The user that it authenticates as; None for none."""
    workspace_id: WorkspaceId | None
    """The workspace of the tenant that it is confined to, with all below it; None for none."""
    name: str
    prefix: str
    """How its secret begins."""
    scopes: tuple[Scope, ...]
    """Sorted."""
    expire_time: datetime | None
    revoke_time: datetime | None
    previous_secret_expire_time: datetime | None
    """Until when the secret before the last rotation is good; None where there was none with an overlap."""
    last_used_time: datetime | None
    created_by: UserId | None
    create_time: datetime
    update_time: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class Invitation:
    """A role on the tenant (`workspace_id` None) or on a workspace, for whoever shows that the email is theirs."""

    tenant_id: TenantId
    id: InvitationId
    workspace_id: WorkspaceId | None
    email: str
    """As the inviter wrote it; its case does not matter."""
    role: Role
    status: InvitationStatus
    """As the clock of the database had it when the record was read."""
    invited_by: UserId | None
    accepted_by: UserId | None
    expire_time: datetime
    end_time: datetime | None
    """When it was accepted, declined or revoked."""
    create_time: datetime
    etag: str

    @property
    def object(self) -> ObjectRef:
        if self.workspace_id is None:
            return ObjectRef("tenant", self.tenant_id)
        return ObjectRef("workspace", self.workspace_id)


@dataclass(frozen=True, slots=True)
class Credential:
    """What a caller has shown: whom it is, what it is good for, and what it is confined to (None: to nothing)."""

    principal: str
    scopes: frozenset[Scope]
    tenant_id: TenantId | None = None
    workspace_id: WorkspaceId | None = None
    user_id: UserId | None = None
    """Whom it authenticates as; it acts for nobody else."""
    verified_email: str = ""
    """Of that user, as an issuer says who is trusted with that; empty for none."""

    @property
    def is_system(self) -> bool:
        """A system key, whomever it acts for."""
        return self.tenant_id is None and self.user_id is None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: the credential (`principal`), the user it acts for, and what it is good for."""

    principal: str
    scopes: frozenset[Scope]
    acting_user: UserId | None
    tenant_id: TenantId | None
    """The tenant that the credential is confined to; None for a system key."""
    request_id: str
    """Names this call in logs and audit."""
    peer: str
    workspace_id: WorkspaceId | None = None
    """The workspace of that tenant that the credential is confined to, with all below it."""
    verified_email: str = ""
    """The acting user's, shown with the credential; empty for none."""
    vouches: bool = False
    """A system key, whomever it acts for: it is believed what it says of users."""

    @property
    def is_system(self) -> bool:
        """A system key in its own name: no rights table applies, only its scopes."""
        return self.tenant_id is None and self.acting_user is None


@dataclass(frozen=True, slots=True)
class TenantScope:
    """Statements see the rows of one tenant and no others."""

    tenant_id: TenantId


@dataclass(frozen=True, slots=True)
class SystemScope:
    """Statements see every tenant's rows; `why` says what needs that."""

    why: str


# -- tuples: what SpiceDB stores ------------------------------------------------------------------------

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def encode_id(value: str) -> str:
    """A caller's id in SpiceDB's alphabet, reversibly: other bytes of its UTF-8 become ``=XX`` in hexadecimal."""
    return "".join(chr(b) if b in _PLAIN else f"={b:02X}" for b in value.encode())


def decode_id(value: str) -> str:
    """The inverse of `encode_id`."""
    return re.sub(rb"=([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), value.encode()).decode()


GLOBAL_TYPES = frozenset({"user"})
"""Types whose objects belong to no tenant."""


def spicedb_id(tenant_id: TenantId, type_: str, id_: str) -> str:
    """The object id in SpiceDB: users by their own id, a tenant's things as ``<tenant id>/<id>``.

    A question under the wrong tenant therefore finds nothing, by construction.
    """
    return encode_id(id_) if type_ in GLOBAL_TYPES else f"{encode_id(tenant_id)}/{encode_id(id_)}"


_TUPLE = re.compile(
    r"(?P<type>[a-z0-9_]+):(?P<id>[^#@]+)#(?P<relation>[a-z0-9_]+)"
    r"@(?P<stype>[a-z0-9_]+):(?P<sid>[^#@\[]+)(?:#(?P<srelation>[a-z0-9_]+))?"
    r"(?:\[expiration:(?P<expiration>[^\]]+)\])?"
)


@dataclass(frozen=True, slots=True)
class Tuple:
    """One relationship in SpiceDB's own ids; its text form is the usual ``type:id#relation@type:id#relation``.

    With an expiration (UTC; Pemba's own in whole seconds) ``[expiration:2026-11-21T09:30:00Z]`` follows.
    """

    resource: ObjectRef
    relation: str
    subject: SubjectRef
    expiration: datetime | None = None

    def __str__(self) -> str:
        until = "" if self.expiration is None else f"[expiration:{self.expiration.isoformat().replace('+00:00', 'Z')}]"
        return f"{self.resource}#{self.relation}@{self.subject}{until}"

    @property
    def plain(self) -> Tuple:
        """Without its expiration: there is at most one such tuple in SpiceDB, and a DELETE names it so."""
        return Tuple(self.resource, self.relation, self.subject)

    @classmethod
    def parse(cls, text: str) -> Tuple:
        """The inverse of `str`.  Raises ValueError; ids in SpiceDB's alphabet hold neither # nor @."""
        match = _TUPLE.fullmatch(text)
        if match is None:
            raise ValueError(f"not a tuple: {text!r}")
        return cls(
            ObjectRef(match["type"], match["id"]),
            match["relation"],
            SubjectRef(match["stype"], match["sid"], match["srelation"] or ""),
            datetime.fromisoformat(match["expiration"]) if match["expiration"] else None,
        )


class Operation(StrEnum):
    TOUCH = "touch"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class TupleOperation:
    """What the outbox carries: an explicit tuple to TOUCH or DELETE, never a filter, never a CREATE.

    A TOUCH replaces whatever expiration the tuple had; a DELETE has none.
    """

    operation: Operation
    tuple: Tuple


class Effect(StrEnum):
    """What it comes to that SpiceDB does not take an operation."""

    NONE = "none"
    """The same as if it had: there is nothing to delete.  Not parked."""

    GRANTS_LESS = "grants_less"
    """Somebody lacks what the records give them."""

    WITHDRAWN = "withdrawn"
    """The same; a plain DELETE stands in its place, since what was there before may have held without conditions."""

    RESTRICTS = "restricts"
    """Somebody could be left with more than the records say: the tenant's checks are closed."""
