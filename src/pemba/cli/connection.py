"""A running Pemba as the commands see it: an address, a key, and calls whose failures are problems to report."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote

import grpc
import typer
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pemba.cli.call_options import CallOptions
from pemba.cli.failure import CallFailed, Problem
from pemba.config import ClientSettings, DevSettings, load
from pemba.dev.ready import FILE_NAME, read_ready
from pemba.errors import ConfigError, FieldViolation
from pemba.v1.api_keys_pb2_grpc import ApiKeyServiceStub
from pemba.v1.audit_pb2_grpc import AuditServiceStub
from pemba.v1.groups_pb2_grpc import GroupServiceStub
from pemba.v1.invitations_pb2_grpc import InvitationServiceStub
from pemba.v1.memberships_pb2_grpc import MembershipServiceStub
from pemba.v1.operations_pb2_grpc import OperationsServiceStub
from pemba.v1.permissions_pb2_grpc import PermissionServiceStub
from pemba.v1.shares_pb2_grpc import ShareServiceStub
from pemba.v1.tenants_pb2_grpc import TenantServiceStub
from pemba.v1.users_pb2_grpc import UserServiceStub
from pemba.v1.watch_pb2_grpc import WatchServiceStub
from pemba.v1.workspaces_pb2_grpc import WorkspaceServiceStub

MAX_PAGE_SIZE = 1000


class _Change(Protocol):
    request_id: str
    validate_only: bool


class _ListRequest(Protocol):
    page_size: int
    page_token: str


class _ListResponse(Protocol):
    next_page_token: str


Request = TypeVar("Request")
Answer = TypeVar("Answer")
Changing = TypeVar("Changing", bound=_Change)
Listing = TypeVar("Listing", bound=_ListRequest)
Listed = TypeVar("Listed", bound=_ListResponse)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the API is and what opens it; `ready_file` is set where a `pemba dev` told us."""

    endpoint: str
    key: str
    ready_file: Path | None = None


class Connection:
    """One command's calls.  Every failure of a call is raised as CallFailed."""

    def __init__(self, channel: grpc.Channel, target: Target, options: CallOptions, tenant: str) -> None:
        self._channel = channel
        self._target = target
        self.output = options.output
        self._options = options
        self._metadata = (("authorization", f"Bearer {target.key}"), *_on_behalf_of(options.on_behalf_of))
        self.default_tenant = tenant

    @cached_property
    def tenants(self) -> TenantServiceStub:
        return TenantServiceStub(self._channel)

    @cached_property
    def workspaces(self) -> WorkspaceServiceStub:
        return WorkspaceServiceStub(self._channel)

    @cached_property
    def memberships(self) -> MembershipServiceStub:
        return MembershipServiceStub(self._channel)

    @cached_property
    def shares(self) -> ShareServiceStub:
        return ShareServiceStub(self._channel)

    @cached_property
    def groups(self) -> GroupServiceStub:
        return GroupServiceStub(self._channel)

    @cached_property
    def users(self) -> UserServiceStub:
        return UserServiceStub(self._channel)

    @cached_property
    def keys(self) -> ApiKeyServiceStub:
        return ApiKeyServiceStub(self._channel)

    @cached_property
    def invitations(self) -> InvitationServiceStub:
        return InvitationServiceStub(self._channel)

    @cached_property
    def permissions(self) -> PermissionServiceStub:
        return PermissionServiceStub(self._channel)

    @cached_property
    def operations(self) -> OperationsServiceStub:
        return OperationsServiceStub(self._channel)

    @cached_property
    def audit(self) -> AuditServiceStub:
        return AuditServiceStub(self._channel)

    @cached_property
    def watch(self) -> WatchServiceStub:
        return WatchServiceStub(self._channel)

    def read(self, rpc: grpc.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        """Call `rpc`, within the deadline of --timeout."""
        try:
            return rpc(request, timeout=self._options.timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise CallFailed(_problem(error, self._target)) from error

    def read_all(self, rpc: grpc.UnaryStreamMultiCallable[Request, Answer], request: Request) -> Sequence[Answer]:
        """Call `rpc` and wait for the end of its stream: a part of it is no answer."""
        try:
            return tuple(rpc(request, timeout=self._options.timeout, metadata=self._metadata))
        except grpc.RpcError as error:
            raise CallFailed(_problem(error, self._target)) from error

    def follow(self, rpc: grpc.UnaryStreamMultiCallable[Request, Answer], request: Request) -> Generator[Answer]:
        """Call `rpc` and give its messages as they come, however long that takes."""
        try:
            yield from rpc(request, metadata=self._metadata)
        except grpc.RpcError as error:
            raise CallFailed(_problem(error, self._target)) from error

    def change(self, rpc: grpc.UnaryUnaryMultiCallable[Changing, Answer], request: Changing) -> Answer:
        """Call `rpc` with what --request-id and --validate-only say."""
        request.request_id = self._options.request_id
        request.validate_only = self._options.validate_only
        return self.read(rpc, request)

    def list(
        self, rpc: grpc.UnaryUnaryMultiCallable[Listing, Listed], request: Listing, field: str, limit: int
    ) -> Listed:
        """Up to `limit` records as one answer, whatever the pages; its token is the first page's, a lower bound.

        `next_page_token` is set where there is more.
        """
        request.page_size = min(limit, MAX_PAGE_SIZE)
        answer = self.read(rpc, request)
        while answer.next_page_token and (left := limit - len(getattr(answer, field))) > 0:
            request.page_size, request.page_token = min(left, MAX_PAGE_SIZE), answer.next_page_token
            page = self.read(rpc, request)
            getattr(answer, field).extend(getattr(page, field))
            answer.next_page_token = page.next_page_token
        return answer


@contextmanager
def connect(options: CallOptions) -> Generator[Connection]:
    """A connection to the Pemba that options, environment or a running `pemba dev` name.  Raises ConfigError."""
    settings = load(ClientSettings, {"endpoint": options.endpoint or None})
    target = find_target(settings, load(DevSettings).data_folder)
    with _channel(target.endpoint, settings) as channel:
        yield Connection(channel, target, options, settings.tenant)


def _channel(endpoint: str, settings: ClientSettings) -> grpc.Channel:
    if not settings.tls:
        return grpc.insecure_channel(endpoint)
    ca, key, certificate = (
        _pem(name, path)
        for name, path in (
            ("PEMBA_TLS_CA_FILE", settings.tls_ca_file),
            ("PEMBA_TLS_KEY_FILE", settings.tls_key_file),
            ("PEMBA_TLS_CERT_FILE", settings.tls_cert_file),
        )
    )
    return grpc.secure_channel(endpoint, grpc.ssl_channel_credentials(ca, key, certificate))


def _pem(name: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {path}: {error.strerror}") from error


def find_target(settings: ClientSettings, dev_folder: Path) -> Target:
    """The address and key to use: those that are set, else those of the `pemba dev` that runs on `dev_folder`.

    Its key goes to that `pemba dev` alone: for another endpoint a key must be set.  Raises ConfigError.
    """
    if settings.endpoint and settings.key:
        return Target(settings.endpoint, settings.key)
    running = read_ready(dev_folder)
    if running is None:
        missing = "PEMBA_KEY or PEMBA_KEY_FILE" if settings.endpoint else "PEMBA_ENDPOINT"
        raise ConfigError(f"{missing} is not set, and no `pemba dev` runs on {dev_folder}")
    if settings.endpoint and settings.endpoint != running.grpc:
        raise ConfigError(f"PEMBA_KEY or PEMBA_KEY_FILE is not set: it takes an API key for {settings.endpoint}")
    return Target(running.grpc, settings.key or running.key, dev_folder / FILE_NAME)


def _on_behalf_of(subject: str) -> list[tuple[str, str]]:
    if not subject:
        return []
    if not subject.startswith("user:") or subject == "user:":
        raise typer.BadParameter("--on-behalf-of takes user:ID, for instance user:alice")
    return [("pemba-on-behalf-of", quote(subject, safe=":"))]


def _problem(error: grpc.RpcError, target: Target) -> Problem:
    code: str = error.code().name
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # the error of a call is the call
    if status is None:  # gRPC itself failed: no connection, or a deadline
        return Problem(code, _own_words(error, target))
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail in status.details:
        detail.Unpack(info), detail.Unpack(bad), detail.Unpack(retry)
    return Problem(
        code=code,
        message=status.message,
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=[FieldViolation(violation.field, violation.description) for violation in bad.field_violations],
        retry_seconds=retry.retry_delay.ToTimedelta().total_seconds() if retry.HasField("retry_delay") else None,
    )


def _own_words(error: grpc.RpcError, target: Target) -> str:
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        hint = f" (from {target.ready_file}); is `pemba dev` running?" if target.ready_file else ""
        return f"cannot reach Pemba at {target.endpoint}{hint}"
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer from {target.endpoint} in time; --timeout SECONDS gives it longer"
    return error.details() or error.code().name
