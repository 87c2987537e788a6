"""Every error that Pemba raises on purpose.

::

    PembaError                      reason (stable), public message, typed fields; the cause is chained, never shown
      InvalidRequest                INVALID_ARGUMENT      names the field and what it takes
      Unauthenticated               UNAUTHENTICATED
      Forbidden                     PERMISSION_DENIED     (the caller may not; never a denied check)
      NotFound                      NOT_FOUND
      AlreadyExists                 ALREADY_EXISTS
      PreconditionFailed            FAILED_PRECONDITION   (root workspace, cycle, has children, token lost)
      ConcurrentUpdate              ABORTED               (etag mismatch, serialization)
      RateLimited                   RESOURCE_EXHAUSTED    with RetryInfo
      BackendError
        Unavailable                 UNAVAILABLE           with RetryInfo
        Timeout                     DEADLINE_EXCEEDED
        Rejected                    INTERNAL
      ConfigError                   at start-up only: names the setting and what it takes

`pemba.rpc` alone turns these into gRPC statuses.  A question is answered ALLOWED, DENIED or CONDITIONAL;
every failure raises one of these, so that no failure can ever read as "allowed".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """The stable machine-readable reasons (ErrorInfo.reason); `pemba.v1.ErrorReason` has the same names."""

    INVALID_FIELD = "INVALID_FIELD"
    NOT_FOUND = "NOT_FOUND"
    ROLE_MISSING = "ROLE_MISSING"
    SCOPE_MISSING = "SCOPE_MISSING"
    KEY_INVALID = "KEY_INVALID"
    KEY_REVOKED = "KEY_REVOKED"
    KEY_EXPIRED = "KEY_EXPIRED"
    API_KEY_ENDED = "API_KEY_ENDED"
    ROTATION_UNDER_WAY = "ROTATION_UNDER_WAY"
    LAST_OWNER = "LAST_OWNER"
    LAST_ADMIN = "LAST_ADMIN"
    CREATOR_STAYS = "CREATOR_STAYS"
    PERSONAL_MEMBERSHIP_FIXED = "PERSONAL_MEMBERSHIP_FIXED"
    PERSONAL_KIND_FROZEN = "PERSONAL_KIND_FROZEN"
    PERSONAL_OWNER_FROZEN = "PERSONAL_OWNER_FROZEN"
    OWNER_ONLY_ON_PERSONAL = "OWNER_ONLY_ON_PERSONAL"
    PERSONAL_EXISTS = "PERSONAL_EXISTS"
    SETTINGS_TOO_LARGE = "SETTINGS_TOO_LARGE"
    SECRET_UNREADABLE = "SECRET_UNREADABLE"  # noqa: S105 - a reason, not a secret
    OWN_ROLE = "OWN_ROLE"
    ONLY_OWNER_MAKES_OWNERS = "ONLY_OWNER_MAKES_OWNERS"
    WORKSPACE_ARCHIVED = "WORKSPACE_ARCHIVED"
    ROOT_WORKSPACE = "ROOT_WORKSPACE"
    HAS_CHILDREN = "HAS_CHILDREN"
    CYCLE = "CYCLE"
    TOO_DEEP = "TOO_DEEP"
    SLUG_TAKEN = "SLUG_TAKEN"
    SLUG_RESERVED = "SLUG_RESERVED"
    USER_EXISTS = "USER_EXISTS"
    EMAIL_TAKEN = "EMAIL_TAKEN"
    SHARE_EXISTS = "SHARE_EXISTS"
    EXTERNAL_ID_TAKEN = "EXTERNAL_ID_TAKEN"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    CHANGE_TOO_LARGE = "CHANGE_TOO_LARGE"
    RATE_LIMITED = "RATE_LIMITED"
    TOKEN_INVALID = "TOKEN_INVALID"  # noqa: S105 - a reason, not a secret
    TOKEN_NOT_YET_VISIBLE = "TOKEN_NOT_YET_VISIBLE"  # noqa: S105 - a reason, not a secret
    TOKEN_LOST = "TOKEN_LOST"  # noqa: S105 - a reason, not a secret
    INVITATION_EXPIRED = "INVITATION_EXPIRED"
    INVITATION_USED = "INVITATION_USED"
    INVITER_ROLE_MISSING = "INVITER_ROLE_MISSING"
    INVITATION_EMAIL_MISMATCH = "INVITATION_EMAIL_MISMATCH"
    ALREADY_MEMBER = "ALREADY_MEMBER"
    CURSOR_EXPIRED = "CURSOR_EXPIRED"
    RESULT_TOO_LARGE = "RESULT_TOO_LARGE"
    TENANT_PARKED = "TENANT_PARKED"
    TENANT_SUSPENDED = "TENANT_SUSPENDED"
    USER_SUSPENDED = "USER_SUSPENDED"
    USER_DEACTIVATED = "USER_DEACTIVATED"
    TOO_MANY_USERS = "TOO_MANY_USERS"
    SCHEMA_MISMATCH = "SCHEMA_MISMATCH"
    POSTGRES_UNAVAILABLE = "POSTGRES_UNAVAILABLE"
    SPICEDB_UNAVAILABLE = "SPICEDB_UNAVAILABLE"
    OVERLOADED = "OVERLOADED"
    ISSUER_UNAVAILABLE = "ISSUER_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CONCURRENT_UPDATE = "CONCURRENT_UPDATE"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field of a request: its name as the proto spells it, and what it takes."""

    field: str
    description: str


class PembaError(Exception):
    """The root.  `message` is for the caller; the private cause is chained with ``raise ... from``."""

    def __init__(self, reason: Reason, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})


class InvalidRequest(PembaError):
    """The request can never succeed as it stands."""

    def __init__(
        self,
        violations: Sequence[FieldViolation],
        reason: Reason = Reason.INVALID_FIELD,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.violations = tuple(violations)
        text = "; ".join(f"{v.field}: {v.description}" for v in self.violations)
        super().__init__(reason, text, metadata)


def invalid_field(field: str, description: str, reason: Reason = Reason.INVALID_FIELD) -> InvalidRequest:
    """Shorthand for the usual case of one bad field."""
    return InvalidRequest([FieldViolation(field, description)], reason)


class Unauthenticated(PembaError):
    """No key, or one that is not known, not any more or past its time."""


class Forbidden(PembaError):
    """The caller can see the thing and may not do this to it."""


class NotFound(PembaError):
    """Not there, or not visible to the caller: the two are the same answer."""

    def __init__(self, what: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(Reason.NOT_FOUND, f"{what} was not found", metadata)


class AlreadyExists(PembaError):
    """A unique thing is there already."""


class PreconditionFailed(PembaError):
    """The state of the records forbids it; `reason` says which guard."""


class ConcurrentUpdate(PembaError):
    """Somebody else changed it first: read again, then try again."""


class RateLimited(PembaError):
    """Too many requests; `retry_seconds` says when to come back."""

    def __init__(self, message: str, retry_seconds: float) -> None:
        super().__init__(Reason.RATE_LIMITED, message)
        self.retry_seconds = retry_seconds


class BackendError(PembaError):
    """PostgreSQL or SpiceDB did not do what was asked."""


class Unavailable(BackendError):
    """For now; the same request may succeed after `retry_seconds`."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        metadata: Mapping[str, str] | None = None,
        retry_seconds: float = 1.0,
    ) -> None:
        super().__init__(reason, message, metadata)
        self.retry_seconds = retry_seconds


class Timeout(BackendError):
    """The caller's deadline passed before there was an answer."""

    def __init__(self, message: str = "the deadline passed before there was an answer") -> None:
        super().__init__(Reason.DEADLINE_EXCEEDED, message)


class Rejected(BackendError):
    """A backend refused what should have been right: a defect or a wrong setting, logged where it was seen."""

    def __init__(self, message: str = "internal error; the log has it under this request's id") -> None:
        super().__init__(Reason.INTERNAL, message)


class ConfigError(Exception):
    """A setting is missing or wrong; the message names it and what it takes."""
