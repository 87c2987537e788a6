"""The shape of requests: what is wrong with a message's fields, all of it at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pemba.errors import FieldViolation, InvalidRequest, Reason
from pemba.model import (
    MAX_EMAIL_BYTES,
    MAX_EXTERNAL_ID_CHARACTERS,
    MAX_NAME_CHARACTERS,
    PERMISSIONS,
    RESERVED_SLUGS,
    SHARE_ROLES,
    SLUG_RULE,
    TENANT_ROLES,
    WORKSPACE_ROLES,
    ApiKeyId,
    GroupId,
    InvitationId,
    ObjectRef,
    Role,
    Scope,
    ShareId,
    SubjectRef,
    TenantId,
    UserId,
    WorkspaceId,
    is_email,
    is_slug,
    is_typeid,
    is_user_id,
)
from pemba.v1 import types_pb2
from pemba.v1.groups_pb2 import UpdateGroupRequest
from pemba.v1.tenants_pb2 import UpdateTenantRequest
from pemba.v1.users_pb2 import UpdateUserRequest
from pemba.v1.workspaces_pb2 import UpdateWorkspaceRequest

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
MAX_PATH_CHARACTERS = 2048

ROLES: dict[int, Role] = {
    types_pb2.ROLE_VIEWER: Role.VIEWER,
    types_pb2.ROLE_MEMBER: Role.MEMBER,
    types_pb2.ROLE_ADMIN: Role.ADMIN,
    types_pb2.ROLE_OWNER: Role.OWNER,
}
OBJECT_PREFIXES = {"tenant": "ten", "workspace": "ws"}
OBJECT_ROLES = {"tenant": TENANT_ROLES, "workspace": WORKSPACE_ROLES}
SUBJECT_TYPES = ("user", "group", "api_key")
_SUBJECTS = "takes user:ID, group:grp_...#member or api_key:key_..."


class Fields:
    """Reads the fields of one request and notes what is wrong with them::

        with Fields() as fields:
            tenant_id = fields.tenant_id("tenant_id", request.tenant_id)

    The end of the block raises InvalidRequest with every violation; what was read is good after it, and not before.
    """

    __slots__ = ("_reason", "_violations")

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []
        self._reason = Reason.INVALID_FIELD

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._violations and error is None:
            reason = self._reason if len(self._violations) == 1 else Reason.INVALID_FIELD
            raise InvalidRequest(self._violations, reason)

    def wrong(self, field: str, description: str, reason: Reason = Reason.INVALID_FIELD) -> None:
        """Note a violation; `reason` is the error's where it is the only one."""
        self._violations.append(FieldViolation(field, description))
        self._reason = reason

    def tenant_id(self, field: str, value: str) -> TenantId:
        if not is_typeid("ten", value):
            self.wrong(field, "takes a tenant id, `ten_...`" if value else "is required: a tenant id, `ten_...`")
        return TenantId(value)

    def workspace_id(self, field: str, value: str) -> WorkspaceId:
        if not is_typeid("ws", value):
            self.wrong(field, "takes a workspace id, `ws_...`" if value else "is required: a workspace id, `ws_...`")
        return WorkspaceId(value)

    def share_id(self, field: str, value: str) -> ShareId:
        if not is_typeid("shr", value):
            self.wrong(field, "takes a share id, `shr_...`" if value else "is required: a share id, `shr_...`")
        return ShareId(value)

    def invitation_id(self, field: str, value: str) -> InvitationId:
        if not is_typeid("inv", value):
            self.wrong(
                field, "takes an invitation id, `inv_...`" if value else "is required: an invitation id, `inv_...`"
            )
        return InvitationId(value)

    def workspace(self, field: str, ref: types_pb2.ObjectRef) -> WorkspaceId:
        """The id of an object that has to be a workspace."""
        if ref.type != "workspace":
            self.wrong(f"{field}.type", "takes `workspace`")
        elif not is_typeid("ws", ref.id):
            self.wrong(f"{field}.id", "takes a workspace id, `ws_...`")
        return WorkspaceId(ref.id)

    def time(self, field: str, value: Timestamp) -> datetime:
        """A moment of the years 1 to 9999, in UTC."""
        try:
            return value.ToDatetime(UTC)
        except (ValueError, OverflowError):
            self.wrong(field, "takes a time of the years 1 to 9999")
            return datetime.max.replace(tzinfo=UTC)

    def group_id(self, field: str, value: str) -> GroupId:
        if not is_typeid("grp", value):
            self.wrong(field, "takes a group id, `grp_...`" if value else "is required: a group id, `grp_...`")
        return GroupId(value)

    def api_key_id(self, field: str, value: str) -> ApiKeyId:
        if not is_typeid("key", value):
            self.wrong(
                field, "takes an API key's id, `key_...`" if value else "is required: an API key's id, `key_...`"
            )
        return ApiKeyId(value)

    def scopes(self, field: str, values: Sequence[str]) -> frozenset[Scope]:
        """At least one, each once."""
        unknown = next((value for value in values if value not in set(Scope)), None)
        if unknown is not None:
            self.wrong(field, _unknown("scope", unknown, tuple(Scope)))
            return frozenset()
        if not values or len(set(values)) < len(values):
            self.wrong(field, f"takes at least one of {', '.join(Scope)}, each once")
        return frozenset(map(Scope, values))

    def span(self, field: str, value: Duration, longest: timedelta) -> timedelta:
        """From nothing to `longest`, in whole days."""
        if not 0 <= value.seconds * 10**9 + value.nanos <= longest.days * 24 * 3600 * 10**9:
            self.wrong(field, f"takes 0 to {longest.days} days")
            return timedelta(0)
        return value.ToTimedelta()

    def external_id(self, field: str, value: str) -> str:
        """What another system calls something; empty for nothing."""
        if len(value) > MAX_EXTERNAL_ID_CHARACTERS or not value.isprintable() or value != value.strip():
            self.wrong(
                field, f"takes at most {MAX_EXTERNAL_ID_CHARACTERS} printable characters, no blank at either end"
            )
        return value

    def user_id(self, field: str, value: str) -> UserId:
        if not is_user_id(value):
            self.wrong(field, "takes a user id: 1 to 256 bytes, printable, no blank at either end")
        return UserId(value)

    def optional_user_id(self, field: str, value: str) -> UserId | None:
        return self.user_id(field, value) if value else None

    def new_slug(self, field: str, value: str) -> str:
        """A slug that a new record may have: reserved words are SLUG_RESERVED."""
        if value in RESERVED_SLUGS:
            self.wrong(field, f"{value} is a reserved word", Reason.SLUG_RESERVED)
        return self.slug(field, value)

    def slug(self, field: str, value: str) -> str:
        if not is_slug(value) and value not in RESERVED_SLUGS:
            self.wrong(field, SLUG_RULE)
        return value

    def path(self, field: str, value: str) -> str:
        """Slugs below the root, `eng/backend`; empty for the root."""
        if len(value) > MAX_PATH_CHARACTERS or (value and not all(is_slug(slug) for slug in value.split("/"))):
            self.wrong(field, "takes slugs from below the root down, `eng/backend`; empty: the root")
        return value

    def name(self, field: str, value: str) -> str:
        if not 0 < len(value) <= MAX_NAME_CHARACTERS or not value.isprintable() or value != value.strip():
            self.wrong(field, f"takes 1 to {MAX_NAME_CHARACTERS} printable characters, no blank at either end")
        return value

    def display_name(self, field: str, value: str) -> str:
        return self.name(field, value) if value else ""

    def optional_email(self, field: str, value: str) -> str:
        if value and not is_email(value):
            self.wrong(field, f"takes an email address of at most {MAX_EMAIL_BYTES} bytes, or nothing")
        return value

    def new_name(self, request: UpdateTenantRequest) -> str | None:
        """The new name where it is to change: where the mask has it (or `*`), or without a mask where it is set."""
        return self.name("name", request.name) if self.changes(request, ("name",)) else None

    def changes(
        self,
        request: UpdateTenantRequest | UpdateWorkspaceRequest | UpdateUserRequest | UpdateGroupRequest,
        fields: Sequence[str],
    ) -> set[str]:
        """Those of the fields that are to change: the mask's (`*`: all), or without a mask those that are set."""
        paths = set(request.update_mask.paths)
        unknown = next((path for path in request.update_mask.paths if path not in (*fields, "*")), None)
        if unknown is not None:
            self.wrong("update_mask", f"has no field {unknown[:64]!r}; it takes {', '.join(fields)}")
        if not paths:
            return {field for field in fields if request.HasField(field)}  # type: ignore[arg-type]  # each has its own literals
        return set(fields) if "*" in paths else paths & set(fields)

    def page_size(self, value: int) -> int:
        """1 to 1,000: none is 100, more is 1,000 (AIP-158)."""
        if value < 0:
            self.wrong("page_size", "takes 0 or more")
        return min(value, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE

    def not_supported(self, field: str, value: object) -> None:
        if value:
            self.wrong(field, "is not supported yet: leave it empty")

    def object(self, field: str, ref: types_pb2.ObjectRef) -> ObjectRef:
        """The tenant or a workspace."""
        prefix = OBJECT_PREFIXES.get(ref.type)
        if prefix is None:
            self.wrong(f"{field}.type", _unknown("type", ref.type, OBJECT_PREFIXES))
        elif not is_typeid(prefix, ref.id):
            self.wrong(f"{field}.id", f"takes a {ref.type} id, `{prefix}_...`")
        return ObjectRef(ref.type, ref.id)

    def permission(self, field: str, type_: str, value: str) -> str:
        """A permission that objects of this type have."""
        known = PERMISSIONS.get(type_)
        if known is not None and value not in known:
            self.wrong(field, _unknown(f"permission on a {type_}", value, known))
        return value

    def resource_type(self, field: str, value: str) -> str:
        """A type of objects that have permissions."""
        if value not in PERMISSIONS:
            self.wrong(field, _unknown("type", value, PERMISSIONS))
        return value

    def subject_type(self, field: str, value: str) -> str:
        """A type of subjects."""
        if value not in SUBJECT_TYPES:
            self.wrong(field, _unknown("type", value, SUBJECT_TYPES))
        return value

    def limit(self, field: str, value: int) -> int:
        """How many at most; 0: all."""
        if value < 0:
            self.wrong(field, "takes 0 (all) or more")
        return value

    def subject(self, field: str, ref: types_pb2.SubjectRef) -> SubjectRef:
        """Whoever can be asked about: a user, the members of a group, an API key."""
        if ref.type == "user":
            self.user_id(f"{field}.id", ref.id)
        elif ref.type not in ("group", "api_key"):
            self.wrong(f"{field}.type", _unknown("type", ref.type, SUBJECT_TYPES))
        elif not is_typeid("grp" if ref.type == "group" else "key", ref.id):
            self.wrong(f"{field}.id", _SUBJECTS)
        elif ref.type == "group" and ref.relation != "member":
            self.wrong(f"{field}.relation", _SUBJECTS)
        if ref.type in ("user", "api_key") and ref.relation:
            self.wrong(f"{field}.relation", f"takes nothing: a {ref.type} has no relations")
        return SubjectRef(ref.type, ref.id, ref.relation)

    def user_subject(self, field: str, ref: types_pb2.SubjectRef) -> SubjectRef:
        """A user."""
        if ref.type in ("group", "api_key"):
            self.wrong(f"{field}.type", "takes `user`")
            return SubjectRef(ref.type, ref.id, ref.relation)
        return self.subject(field, ref)

    def holder(self, field: str, ref: types_pb2.SubjectRef) -> SubjectRef:
        """Whoever can have a role or be in a group; a group stands for its members by itself too."""
        if ref.type == "group" and not ref.relation:
            ref = types_pb2.SubjectRef(type=ref.type, id=ref.id, relation="member")
        return self.subject(field, ref)

    def member(self, field: str, ref: types_pb2.SubjectRef, *, manager: bool) -> SubjectRef:
        """Whoever can be in a group; a manager is a user."""
        if manager and ref.type in ("group", "api_key"):
            self.wrong(field.removesuffix("subject") + "manager", f"takes false for a {ref.type}: users manage groups")
        return self.holder(field, ref)

    def role(self, field: str, object_type: str, value: int, subject_type: str = "user") -> Role:
        """A role that objects of this type have, and subjects of that type can have: only users are owners."""
        allowed = OBJECT_ROLES.get(object_type, WORKSPACE_ROLES)
        if subject_type in ("group", "api_key"):
            allowed = tuple(role for role in allowed if role is not Role.OWNER)
        role = ROLES.get(value)
        if role is None or role not in allowed:
            names = ", ".join(f"ROLE_{role.name}" for role in allowed)
            has = f"a {object_type} has" + (f" for a {subject_type}" if subject_type != "user" else "")
            self.wrong(field, f"takes a role that {has}: {names}" if role else f"takes one of {names}")
        return role or Role.VIEWER

    def share_role(self, field: str, value: int) -> Role:
        """A role that a share can give."""
        role = ROLES.get(value)
        if role not in SHARE_ROLES:
            names = ", ".join(f"ROLE_{role.name}" for role in SHARE_ROLES)
            self.wrong(field, f"takes one of {names}: a share makes no owners" if role else f"takes one of {names}")
        return role or Role.VIEWER


def _unknown(what: str, value: str, known: Collection[str]) -> str:
    return f"there is no {what} {value[:64]!r}; there are {', '.join(known)}"
