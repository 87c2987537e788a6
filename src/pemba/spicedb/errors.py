"""What SpiceDB says, in Pemba's errors: classed by ErrorInfo reason first, by gRPC code only where there is none.

FAILED_PRECONDITION, for instance, is a precondition that did not hold *or* an unknown definition: the code alone
does not tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import grpc
import structlog
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from pemba.errors import BackendError, PreconditionFailed, Reason, Rejected, Timeout, Unavailable
from pemba.telemetry import Event

log = structlog.get_logger()

_DETAILS_KEY = "grpc-status-details-bin"
_PREFIX = "ERROR_REASON_"


class WriteFailure(StrEnum):
    """What a failed write means for the one who sent it."""

    UNCERTAIN = "UNCERTAIN"
    """It may have landed, or may yet: try again, for ever."""

    PRECONDITION = "PRECONDITION"
    """A precondition did not hold; nothing was written."""

    SETTING = "SETTING"
    """A limit, a key or a version is wrong; no retry helps before a person does."""

    OPERATION = "OPERATION"
    """One of the operations is refused for its own sake; nothing was written."""

    REFUSED = "REFUSED"
    """Refused, and nothing says that it is for an operation's sake; nothing was written."""


class WriteFailed(BackendError):
    """A write that was not acknowledged, and what that means; `cause` is SpiceDB's reason, or else gRPC's code."""

    def __init__(self, kind: WriteFailure, message: str, cause: str = "") -> None:
        super().__init__(Reason.INTERNAL, message)
        self.kind = kind
        self.cause = cause


_OPERATION_REASONS = frozenset(
    {
        "UNKNOWN_DEFINITION",
        "UNKNOWN_RELATION_OR_PERMISSION",
        "UNKNOWN_CAVEAT",
        "INVALID_SUBJECT_TYPE",
        "CAVEAT_PARAMETER_TYPE_ERROR",
        "UPDATES_ON_SAME_RELATIONSHIP",
        "CANNOT_UPDATE_PERMISSION",
        "MAX_RELATIONSHIP_CONTEXT_SIZE",
        "ATTEMPT_TO_RECREATE_RELATIONSHIP",
        "WILDCARD_NOT_ALLOWED",
    }
)
_SETTING_REASONS = frozenset(
    {
        "TOO_MANY_UPDATES_IN_REQUEST",
        "TOO_MANY_PRECONDITIONS_IN_REQUEST",
        "EXCEEDS_MAXIMUM_ALLOWABLE_LIMIT",
        "TRANSACTION_METADATA_TOO_LARGE",
        "SERVICE_READ_ONLY",
        "EMPTY_PRECONDITION",
    }
)
_NAME_REASONS = frozenset({"UNKNOWN_DEFINITION", "UNKNOWN_RELATION_OR_PERMISSION"})
_SCHEMA_REASONS = frozenset({"SCHEMA_PARSE_ERROR", "SCHEMA_TYPE_ERROR"})
_UNCERTAIN_REASONS = frozenset(
    {"SERIALIZATION_FAILURE", "INMEMORY_TOO_MANY_CONCURRENT_UPDATES", "DATASTORE_NOT_MIGRATED"}
)

# Every code has its meaning here: a test walks them all.
_WRITE_CODES = {
    grpc.StatusCode.OK: WriteFailure.UNCERTAIN,
    grpc.StatusCode.CANCELLED: WriteFailure.UNCERTAIN,
    grpc.StatusCode.UNKNOWN: WriteFailure.UNCERTAIN,
    grpc.StatusCode.DEADLINE_EXCEEDED: WriteFailure.UNCERTAIN,
    grpc.StatusCode.ABORTED: WriteFailure.UNCERTAIN,
    grpc.StatusCode.INTERNAL: WriteFailure.UNCERTAIN,
    grpc.StatusCode.UNAVAILABLE: WriteFailure.UNCERTAIN,
    grpc.StatusCode.DATA_LOSS: WriteFailure.UNCERTAIN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: WriteFailure.UNCERTAIN,
    grpc.StatusCode.INVALID_ARGUMENT: WriteFailure.OPERATION,
    grpc.StatusCode.OUT_OF_RANGE: WriteFailure.REFUSED,
    grpc.StatusCode.NOT_FOUND: WriteFailure.REFUSED,
    grpc.StatusCode.ALREADY_EXISTS: WriteFailure.REFUSED,
    grpc.StatusCode.FAILED_PRECONDITION: WriteFailure.REFUSED,
    grpc.StatusCode.UNAUTHENTICATED: WriteFailure.SETTING,
    grpc.StatusCode.PERMISSION_DENIED: WriteFailure.SETTING,
    grpc.StatusCode.UNIMPLEMENTED: WriteFailure.SETTING,
}
_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNKNOWN,
    }
)


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """SpiceDB's reason without its prefix; empty where the status carries none."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return reason_in(Status.FromString(value))
    return ""


def reason_in(status: Status) -> str:
    """The reason that a status carries, without its prefix; empty where it carries none."""
    info = ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info):
            return str(info.reason).removeprefix(_PREFIX)
    return ""


def write_failure(code: grpc.StatusCode, reason: str) -> WriteFailure:
    """The class of a failed write."""
    if reason == "WRITE_OR_DELETE_PRECONDITION_FAILURE":
        return WriteFailure.PRECONDITION
    if reason in _OPERATION_REASONS:
        return WriteFailure.OPERATION
    if reason in _SETTING_REASONS:
        return WriteFailure.SETTING
    return WriteFailure.UNCERTAIN if reason in _UNCERTAIN_REASONS else _WRITE_CODES[code]


@contextmanager
def translated_write() -> Iterator[None]:
    """Every failure of a write as `WriteFailed`, chained."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        reason = reason_of(error)
        cause = reason or error.code().name
        text = f"SpiceDB did not take the write: {cause}: {error.details()}"
        raise WriteFailed(write_failure(error.code(), reason), text, cause) from error


def names_nothing(error: grpc.aio.AioRpcError) -> bool:
    """Whether a filter names what this schema cannot store: an unknown type, a permission, an id of another form."""
    reason = reason_of(error)
    malformed = not reason and error.code() is grpc.StatusCode.INVALID_ARGUMENT
    return malformed or reason in _NAME_REASONS or reason in _SCHEMA_REASONS


@contextmanager
def translated() -> Iterator[None]:
    """Every failure of a question as one of Pemba's errors, chained; none of them is an answer."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise read_error(error.code(), reason_of(error), error.details() or "") from error


def read_error(code: grpc.StatusCode, reason: str, details: str) -> BackendError | PreconditionFailed:
    """The error that a failed question is."""
    if reason == "MAXIMUM_DEPTH_EXCEEDED":
        return PreconditionFailed(Reason.TOO_DEEP, "the graph is deeper than SpiceDB follows: groups nested too deep?")
    if reason in _NAME_REASONS:
        return Unavailable(
            Reason.SCHEMA_MISMATCH, f"SpiceDB's schema is not the one that this build needs: {details}", retry_seconds=5
        )
    if reason in _SCHEMA_REASONS:
        return PreconditionFailed(Reason.SCHEMA_MISMATCH, f"SpiceDB does not take the schema: {details}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Timeout("the deadline passed before SpiceDB answered")
    if code in _AWAY or reason in _UNCERTAIN_REASONS:
        return Unavailable(Reason.SPICEDB_UNAVAILABLE, "SpiceDB cannot be reached; try again")
    log.error(Event.SPICEDB_REFUSED, code=code.name, reason=reason, details=details)
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return Rejected("SpiceDB refuses Pemba's key: PEMBA_SPICEDB_KEY takes SpiceDB's preshared key")
    return Rejected()
