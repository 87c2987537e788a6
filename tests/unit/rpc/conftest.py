"""A real server on 127.0.0.1 whose services are fakes: they note what they are called with, and answer as told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from grpc_status import rpc_status

from pemba.authorizer import AllAnswer, Answer, BatchAnswer, Decision, Lookup
from pemba.authorizer import Found as FoundByLookup
from pemba.model import (
    ApiKey,
    ApiKeyId,
    Credential,
    DeletionCount,
    Group,
    GroupId,
    GroupMember,
    Invitation,
    InvitationId,
    InvitationStatus,
    Membership,
    Role,
    Scope,
    SecretSetting,
    Settings,
    Share,
    ShareId,
    SubjectRef,
    Tenant,
    TenantDeletion,
    TenantId,
    TenantStatus,
    User,
    UserId,
    UserStatus,
    Workspace,
    WorkspaceId,
    WorkspaceKind,
)
from pemba.rpc.authentication import Authentication, SystemKeys
from pemba.rpc.limits import Admission
from pemba.rpc.server import Limits, RpcServer, Services, build_server
from pemba.service.api_keys import Issued
from pemba.service.invitation_answers import Accepted, Taken
from pemba.service.invitations import Invited
from pemba.service.key_secrets import new_secret
from pemba.service.operations import RelayStatus
from pemba.service.outbox_tail import TailEvent
from pemba.service.reconciliation import Event
from pemba.service.resealing import Resealed
from pemba.service.results import Changed, Found, Page, TenantCreated
from pemba.service.user_workspace import CurrentWorkspace
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

KEY = "k" * 32
SECOND_KEY = "l" * 32
NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)

TENANT_ID = TenantId("ten_01kafa7q0ve8x9m1t2b3c4d5e6")
OTHER_TENANT_ID = TenantId("ten_01kafa7q0ve8x9m1t2b3c4d5e7")
WORKSPACE_ID = WorkspaceId("ws_01kafa7q0ve8x9m1t2b3c4d5e6")
OTHER_WORKSPACE_ID = WorkspaceId("ws_01kafa7q0ve8x9m1t2b3c4d5e7")

TENANT = Tenant(TENANT_ID, "acme", "Acme", TenantStatus.ACTIVE, NOW, NOW, "e1")
DELETION = TenantDeletion(TENANT_ID, "acme", "Acme", NOW, None, (DeletionCount("workspaces", 5, 3),), 2)
WORKSPACE = Workspace(
    tenant_id=TENANT_ID,
    id=WORKSPACE_ID,
    parent_id=None,
    slug="root",
    name="Acme",
    kind=WorkspaceKind.ROOT,
    archive_time=None,
    archived_with=None,
    creator_id=None,
    create_time=NOW,
    update_time=NOW,
    etag="e1",
)
MEMBERSHIP = Membership(
    tenant_id=TENANT_ID,
    workspace_id=WORKSPACE_ID,
    subject=SubjectRef("user", "alice"),
    role=Role.ADMIN,
    join_time=NOW,
    update_time=NOW,
    invited_by=UserId("bob"),
    etag="e1",
)
SHARE = Share(
    tenant_id=TENANT_ID,
    id=ShareId("shr_01kafa7q0ve8x9m1t2b3c4d5e6"),
    workspace_id=WORKSPACE_ID,
    with_workspace_id=OTHER_WORKSPACE_ID,
    role=Role.VIEWER,
    expire_time=NOW,
    created_by=UserId("bob"),
    create_time=NOW,
    etag="e1",
)
USER = User(UserId("alice"), "alice@acme.test", "Alice", UserStatus.ACTIVE, False, None, NOW, NOW, "e1")
GROUP_ID = GroupId("grp_01kafa7q0ve8x9m1t2b3c4d5e6")
GROUP = Group(TENANT_ID, GROUP_ID, "a-team", "A Team", "okta-1", NOW, NOW, "e1")
MEMBER = GroupMember(TENANT_ID, GROUP_ID, SubjectRef("user", "alice"), True, NOW, UserId("bob"))
API_KEY = ApiKey(
    id=ApiKeyId("key_01kafa7q0ve8x9m1t2b3c4d5e6"),
    tenant_id=TENANT_ID,
    user_id=UserId("alice"),
    workspace_id=WORKSPACE_ID,
    name="CI",
    prefix="pemba_0123abcd",
    scopes=(Scope.CHECK, Scope.READ),
    expire_time=NOW,
    revoke_time=None,
    previous_secret_expire_time=None,
    last_used_time=NOW,
    created_by=UserId("bob"),
    create_time=NOW,
    update_time=NOW,
    etag="e1",
)
INVITATION = Invitation(
    tenant_id=TENANT_ID,
    id=InvitationId("inv_01kafa7q0ve8x9m1t2b3c4d5e6"),
    workspace_id=WORKSPACE_ID,
    email="carol@acme.test",
    role=Role.MEMBER,
    status=InvitationStatus.ACCEPTED,
    invited_by=UserId("bob"),
    accepted_by=UserId("alice"),
    expire_time=NOW,
    end_time=NOW,
    create_time=NOW,
    etag="e1",
)
SETTINGS = Settings(
    TENANT_ID, WORKSPACE_ID, "mail", {"port": 25, "to": ["a", None]}, (SecretSetting("password", NOW),), NOW, "e1"
)
ALLOWED = Answer(Decision.ALLOWED, None, (), "t1")

_DETAILS = (ErrorInfo, BadRequest, PreconditionFailure, RetryInfo)


@dataclass
class Noted:
    """One call of a fake."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass
class FakeService:
    """Any method can be called; `answers` holds what each returns, or a coroutine function that decides."""

    answers: dict[str, Any]
    calls: list[Noted] = field(default_factory=list)

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        if method.startswith("_") or method not in self.answers:
            raise AttributeError(method)

        async def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append(Noted(method, arguments, options))
            answer = self.answers[method]
            return await answer(*arguments, **options) if callable(answer) else answer

        return call


@dataclass
class FakeOperations(FakeService):
    """`events` are what a reconciliation tells, `tail` what happens to rows."""

    events: list[Event] = field(default_factory=list)
    tail: list[TailEvent] = field(default_factory=list)

    async def tail_outbox(self, *arguments: Any) -> AsyncIterator[TailEvent]:
        self.calls.append(Noted("tail_outbox", arguments, {}))
        for event in self.tail:
            yield event

    async def reconcile(self, *arguments: Any) -> AsyncIterator[Event]:
        self.calls.append(Noted("reconcile", arguments, {}))
        for event in self.events:
            yield event

    def token(self, _: Any) -> str:
        return "t9"


@dataclass
class FakeKeys:
    """API keys by their secrets: a credential, or the error that it comes to."""

    known: dict[str, Credential | Exception] = field(default_factory=dict)

    def remembers(self, secret: str) -> bool:
        return secret in self.known

    def issue(self, *scopes: Scope, **confined: Any) -> str:
        """The secret of a new key of this tenant, user and workspace."""
        secret = new_secret().text
        self.known[secret] = Credential("api_key:key_1", frozenset(scopes), **confined)
        return secret

    async def credential(self, secret: str) -> Credential | None:
        found = self.known.get(secret)
        if isinstance(found, Exception):
            raise found
        return found


@dataclass
class FakeStreams(FakeService):
    """`streams` are what each method that streams gives."""

    streams: dict[str, list[Any]] = field(default_factory=dict)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("_") or method not in self.streams:
            return super().__getattr__(method)

        async def stream(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
            self.calls.append(Noted(method, arguments, options))
            for each in self.streams[method]:
                yield each

        return stream


@dataclass
class FakeReads:
    """Notes what is noted."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def note(self, *arguments: Any) -> None:
        self.calls.append(arguments)


@dataclass
class Refusal:
    """An error as a client sees it, its details unpacked."""

    code: grpc.StatusCode
    message: str
    info: ErrorInfo | None
    violations: dict[str, str]
    details: dict[str, Any]

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Refusal:
        status = rpc_status.from_call(error)
        details: dict[str, Any] = {}
        for detail in () if status is None else status.details:
            kind = next(kind for kind in _DETAILS if detail.Is(kind.DESCRIPTOR))
            message = details[kind.__name__] = kind()
            detail.Unpack(message)
        bad = details.get("BadRequest", BadRequest())
        violations = {v.field: v.description for v in bad.field_violations}
        return cls(error.code(), error.details() or "", details.get("ErrorInfo"), violations, details)

    @property
    def reason(self) -> str:
        return "" if self.info is None else self.info.reason


@dataclass
class Running:
    """A server that answers, and stubs to call it with a system key."""

    rpc: RpcServer
    authorizer: FakeService
    tenants: FakeService
    workspaces: FakeService
    memberships: FakeService
    groups: FakeService
    shares: FakeService
    users: FakeService
    api_keys: FakeService
    operations: FakeOperations
    settings: FakeService
    audit: FakeStreams
    watch: FakeStreams
    refusals: FakeService
    roster_reads: FakeReads
    invitations: FakeService
    channel: grpc.aio.Channel
    stubs: tuple[Any, ...]
    keys: FakeKeys

    @property
    def services(self) -> Services:
        """The fakes, as the server takes them."""
        return Services(*(getattr(self, name) for name in Services.__slots__))

    async def call(
        self,
        method: str,
        request: Any,
        *metadata: tuple[str, str],
        authorization: str | None = f"Bearer {KEY}",
        timeout: float = 10,
    ) -> Any:
        """The response of the method of that name, or all of its stream, called with the first system key."""
        stub = next(getattr(stub, method) for stub in self.stubs if hasattr(stub, method))
        key = () if authorization is None else (("authorization", authorization),)
        call = stub(request, metadata=(*key, *metadata), timeout=timeout)
        return [answer async for answer in call] if isinstance(call, grpc.aio.UnaryStreamCall) else await call

    def called(self) -> bool:
        """Whether anything came through to a service."""
        fakes = (
            *(self.authorizer, self.tenants, self.workspaces, self.memberships, self.groups, self.shares),
            *(self.users, self.api_keys, self.operations, self.invitations),
        )
        return any(fake.calls for fake in fakes)

    async def refusal(self, method: str, request: Any, *metadata: tuple[str, str], **options: Any) -> Refusal:
        """The error that the call ends with."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(method, request, *metadata, **options)
        return Refusal.of(caught.value)


Serve = Callable[..., Awaitable[Running]]


def _fakes() -> tuple[Any, ...]:
    async def lookup(*_: Any) -> Lookup:
        return Lookup(None, "t1", iter([FoundByLookup("found", Decision.ALLOWED, (), "c1")]))

    changed = Changed(WORKSPACE, "t2")
    member = Changed(MEMBERSHIP, "t2")
    members = Changed((MEMBERSHIP,), "t2")
    tenant = Changed(TENANT, "t2")
    user = Changed(USER, "t2")
    return (
        FakeService(
            {
                "check": ALLOWED,
                "batch_check": BatchAnswer((ALLOWED,), "t1"),
                "check_all": AllAnswer({"view": ALLOWED}, None, "t1"),
                "lookup_resources": lookup,
                "lookup_subjects": lookup,
            }
        ),
        FakeService(
            {
                "create_tenant": TenantCreated(TENANT, WORKSPACE, "t1"),
                "get_tenant": Found(TENANT, "t1"),
                "list_tenants": Page((TENANT,), "next", ""),
                "update_tenant": tenant,
                "suspend_tenant": tenant,
                "activate_tenant": tenant,
                "delete_tenant": Changed(DELETION, "t2"),
                "get_tenant_deletion": DELETION,
            }
        ),
        FakeService(
            {
                "create_workspace": changed,
                "get_workspace": Found(WORKSPACE, "t1"),
                "list_workspaces": Page((WORKSPACE,), "", "t1"),
                "update_workspace": changed,
                "move_workspace": changed,
                "archive_workspace": changed,
                "unarchive_workspace": changed,
                "delete_workspace": changed,
                "create_personal_workspace": changed,
                "ensure_personal_workspace": (changed, True),
            }
        ),
        FakeService(
            {
                "set_role": member,
                "set_roles": members,
                "get_membership": Found(MEMBERSHIP, "t1"),
                "remove_member": Changed(None, ""),
                "transfer_ownership": members,
                "list_members": Page((MEMBERSHIP,), "", "t1"),
                "list_effective_members": Page((), "", "t1"),
            }
        ),
        FakeService(
            {
                "create_group": Changed(GROUP, ""),
                "get_group": Found(GROUP, "t1"),
                "list_groups": Page((GROUP,), "next", "t1"),
                "update_group": Changed(GROUP, ""),
                "delete_group": Changed(GROUP, "t2"),
                "add_group_member": Changed(MEMBER, "t2"),
                "remove_group_member": Changed(None, ""),
                "set_group_members": Changed(GROUP, "t2"),
                "list_group_members": Page((MEMBER,), "", "t1"),
            }
        ),
        FakeService(
            {
                "create_share": Changed(SHARE, "t2"),
                "revoke_share": Changed(SHARE, "t2"),
                "get_share": Found(SHARE, "t1"),
                "list_shares": Page((SHARE,), "next", "t1"),
            }
        ),
        FakeService(
            {
                "create_user": Changed((USER, WORKSPACE), "t1"),
                "get_user": Found(USER, "t1"),
                "list_users": Page((USER,), "next", "t1"),
                "update_user": user,
                "suspend_user": user,
                "activate_user": user,
                "deactivate_user": user,
                "list_user_memberships": Page((MEMBERSHIP,), "", ""),
                "set_current_workspace": changed,
                "get_current_workspace": Found(CurrentWorkspace(WORKSPACE, chosen=True), "t1"),
                "record_login": user,
            }
        ),
        FakeService(
            {
                "create_api_key": Issued(Changed(API_KEY, ""), "pemba_0123abcd_secret"),
                "get_api_key": Found(API_KEY, "t1"),
                "list_api_keys": Page((API_KEY,), "next", "t1"),
                "revoke_api_key": Changed(API_KEY, "t2"),
                "rotate_api_key": Issued(Changed(API_KEY, "", replayed=True), ""),
            }
        ),
        FakeOperations({"get_relay_status": RelayStatus([], [], None), "reencrypt_secrets": Resealed(2, 1)}),
        FakeService(
            {
                "get_settings": Found((SETTINGS,), "t1"),
                "update_settings": Changed(SETTINGS, ""),
                "get_secret": Changed("hunter2", "t2"),
            }
        ),
        FakeStreams({"list_events": Page((), "", "")}, streams={"export_events": []}),
        FakeStreams({}, streams={"changes": [], "positions": []}),
        FakeService({"record": None}),
        FakeReads(),
        FakeService(
            {
                "create_invitation": Invited(Changed(INVITATION, ""), "secret", "https://app.test/?token=secret"),
                "accept_invitation": Accepted(
                    Changed(Taken(INVITATION, MEMBERSHIP, USER, API_KEY), "t2"), "pemba_0123abcd_secret"
                ),
                "decline_invitation": Changed(INVITATION, ""),
                "revoke_invitation": Changed(INVITATION, "", replayed=True),
                "get_invitation": Found(INVITATION, "t1"),
                "list_invitations": Page((INVITATION,), "next", "t1"),
            }
        ),
    )


def _ready() -> None: ...


UNLIMITED = Admission(max_calls_of_a_caller=1000)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(
            limits: Limits | None = None,
            readiness: Callable[[], None] = _ready,
            *,
            admission: Admission = UNLIMITED,
            reflection: bool = False,
        ) -> Running:
            fakes, keys = _fakes(), FakeKeys()
            services = Services(*fakes)  # type: ignore[arg-type]
            rpc = build_server(
                "127.0.0.1:0",
                services,
                Authentication(SystemKeys([KEY, SECOND_KEY]), keys, admission),
                admission,
                readiness,
                limits or Limits(),
                with_reflection=reflection,
            )
            await rpc.start()
            stack.push_async_callback(rpc.stop, 0)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{rpc.port}"))
            stubs = (
                PermissionServiceStub,
                TenantServiceStub,
                WorkspaceServiceStub,
                MembershipServiceStub,
                GroupServiceStub,
                ShareServiceStub,
                UserServiceStub,
                ApiKeyServiceStub,
                InvitationServiceStub,
                OperationsServiceStub,
                AuditServiceStub,
                WatchServiceStub,
            )
            return Running(rpc, *fakes, channel, tuple(stub(channel) for stub in stubs), keys)

        yield start


@pytest.fixture
async def running(serve: Serve) -> Running:
    return await serve()
