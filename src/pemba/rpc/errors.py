"""Errors as google.rpc.Status: the one place that knows which error is which gRPC code."""

from __future__ import annotations

from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from pemba.errors import (
    AlreadyExists,
    BackendError,
    ConcurrentUpdate,
    Forbidden,
    InvalidRequest,
    NotFound,
    PembaError,
    PreconditionFailed,
    RateLimited,
    Rejected,
    Timeout,
    Unauthenticated,
    Unavailable,
)

DOMAIN = "pemba"

CODES: dict[type[PembaError], StatusCode] = {
    InvalidRequest: StatusCode.INVALID_ARGUMENT,
    Unauthenticated: StatusCode.UNAUTHENTICATED,
    Forbidden: StatusCode.PERMISSION_DENIED,
    NotFound: StatusCode.NOT_FOUND,
    AlreadyExists: StatusCode.ALREADY_EXISTS,
    PreconditionFailed: StatusCode.FAILED_PRECONDITION,
    ConcurrentUpdate: StatusCode.ABORTED,
    RateLimited: StatusCode.RESOURCE_EXHAUSTED,
    BackendError: StatusCode.INTERNAL,
    Unavailable: StatusCode.UNAVAILABLE,
    Timeout: StatusCode.DEADLINE_EXCEEDED,
    Rejected: StatusCode.INTERNAL,
}

# A status travels in the trailers, of which clients take 8 KiB by default: what is longer is cut.
_MAX_MESSAGE_BYTES = 768
_MAX_VALUE_BYTES = 192
_MAX_VIOLATIONS = 10
_MAX_METADATA = 8


def code_of(error: PembaError) -> StatusCode:
    """The gRPC code of this class of errors, or of the nearest one it derives from."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), StatusCode.INTERNAL)


def public_error(error: Exception) -> PembaError:
    """What a caller may be told: an error of ours as it is, a passed deadline, else an internal error without cause."""
    if isinstance(error, PembaError):
        return error
    return Timeout() if isinstance(error, TimeoutError) else Rejected()


def to_status(error: PembaError, request_id: str) -> Status:
    """The error with its details, small enough for the trailers of any client."""
    status = Status(code=code_of(error).value[0], message=_cut(error.message, _MAX_MESSAGE_BYTES))
    for detail in _details(error, request_id):
        status.details.add().Pack(detail)
    return status


def _details(error: PembaError, request_id: str) -> list[Message]:
    info = ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={"request_id": request_id})
    for key, value in list(error.metadata.items())[:_MAX_METADATA]:
        info.metadata[key] = _cut(value, _MAX_VALUE_BYTES)
    details: list[Message] = [info]
    if isinstance(error, InvalidRequest):
        details.append(_bad_request(error))
    if isinstance(error, PreconditionFailed):
        details.append(_precondition_failure(error))
    if isinstance(error, (Unavailable, RateLimited)):
        details.append(_retry_info(error.retry_seconds))
    return details


def _bad_request(error: InvalidRequest) -> BadRequest:
    return BadRequest(
        field_violations=[
            BadRequest.FieldViolation(
                field=_cut(violation.field, _MAX_VALUE_BYTES),
                description=_cut(violation.description, _MAX_VALUE_BYTES),
            )
            for violation in error.violations[:_MAX_VIOLATIONS]
        ]
    )


def _precondition_failure(error: PreconditionFailed) -> PreconditionFailure:
    violation = PreconditionFailure.Violation(
        type=error.reason, subject=DOMAIN, description=_cut(error.message, _MAX_VALUE_BYTES)
    )
    return PreconditionFailure(violations=[violation])


def _retry_info(seconds: float) -> RetryInfo:
    info = RetryInfo()
    info.retry_delay.FromMilliseconds(round(seconds * 1000))
    return info


def _cut(text: str, size: int) -> str:
    data = text.encode(errors="replace")
    return text if len(data) <= size else data[: size - 3].decode(errors="ignore") + "..."
