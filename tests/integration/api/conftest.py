"""A whole Pemba in this process, `serve` and `relay` on real servers, called over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from pemba import app
from pemba.config import RelaySettings, ServeSettings
from pemba.v1 import (
    api_keys_pb2_grpc,
    groups_pb2_grpc,
    invitations_pb2_grpc,
    memberships_pb2_grpc,
    permissions_pb2,
    permissions_pb2_grpc,
    shares_pb2_grpc,
    tenants_pb2,
    tenants_pb2_grpc,
    types_pb2,
    users_pb2_grpc,
    workspaces_pb2,
    workspaces_pb2_grpc,
)

KEY = "system-key-of-the-tests-" + "k" * 16
ROOT_SECRET = "r" * 32


@dataclass
class Api:
    """The stubs of one server, and short ways to use them.  `act` is the metadata of a call on behalf of a user."""

    channel: grpc.aio.Channel
    key: str = KEY
    endpoint: str = ""

    def __post_init__(self) -> None:
        self.permissions = permissions_pb2_grpc.PermissionServiceStub(self.channel)
        self.tenants = tenants_pb2_grpc.TenantServiceStub(self.channel)
        self.workspaces = workspaces_pb2_grpc.WorkspaceServiceStub(self.channel)
        self.memberships = memberships_pb2_grpc.MembershipServiceStub(self.channel)
        self.groups = groups_pb2_grpc.GroupServiceStub(self.channel)
        self.shares = shares_pb2_grpc.ShareServiceStub(self.channel)
        self.users = users_pb2_grpc.UserServiceStub(self.channel)
        self.invitations = invitations_pb2_grpc.InvitationServiceStub(self.channel)
        self.keys = api_keys_pb2_grpc.ApiKeyServiceStub(self.channel)

    def metadata(self, **extra: str) -> tuple[tuple[str, str], ...]:
        named = {name.replace("_", "-"): value for name, value in extra.items()}
        return (("authorization", f"Bearer {self.key}"), *named.items())

    async def tenant(self, slug: str, admin: str = "alice") -> tenants_pb2.CreateTenantResponse:
        request = tenants_pb2.CreateTenantRequest(slug=slug, name=slug.title(), first_admin=admin)
        return await self.tenants.CreateTenant(request, metadata=self.metadata())

    async def workspace(self, parent: workspaces_pb2.Workspace, slug: str) -> workspaces_pb2.CreateWorkspaceResponse:
        request = workspaces_pb2.CreateWorkspaceRequest(
            tenant_id=parent.tenant_id, parent_id=parent.id, slug=slug, name=slug.title()
        )
        return await self.workspaces.CreateWorkspace(request, metadata=self.metadata())

    async def check(
        self, workspace: workspaces_pb2.Workspace, user: str, permission: str, token: str = "", **metadata: str
    ) -> bool:
        """Whether it is ALLOWED, at least as fresh as `token`."""
        request = permissions_pb2.CheckRequest(
            tenant_id=workspace.tenant_id,
            resource=types_pb2.ObjectRef(type="workspace", id=workspace.id),
            permission=permission,
            subject=types_pb2.SubjectRef(type="user", id=user),
            consistency=types_pb2.Consistency(at_least_as_fresh=token) if token else None,
        )
        answer = await self.permissions.Check(request, metadata=self.metadata(**metadata))
        assert answer.decision in (permissions_pb2.DECISION_ALLOWED, permissions_pb2.DECISION_DENIED)
        return answer.decision == permissions_pb2.DECISION_ALLOWED


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The ErrorInfo reason of a refusal; empty where it carries none."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(details).details if details else ():
        if detail.Unpack(info):
            return info.reason
    return ""


@pytest.fixture(scope="session")
def reason():
    return reason_of


def serve_settings(settings: Mapping[str, object]) -> ServeSettings:
    return ServeSettings(
        **settings,
        grpc_listen="127.0.0.1:0",
        http_listen="127.0.0.1:0",
        system_keys=(KEY,),
        root_secrets=(ROOT_SECRET,),
        peer_strangers_per_second=0,  # the tests come with many, from one address
    )


@asynccontextmanager
async def a_whole_pemba(settings: Mapping[str, object]) -> AsyncIterator[Api]:
    stopping = asyncio.Event()
    serve = serve_settings(settings)
    relaying = asyncio.create_task(app.relay(RelaySettings(**settings), stopping))
    async with app.serving(serve, stopping) as running:
        assert running is not None
        while not running.http_port or not await is_ready(running.grpc_port):
            assert not relaying.done()
        endpoint = f"127.0.0.1:{running.grpc_port}"
        async with grpc.aio.insecure_channel(endpoint) as channel:
            yield Api(channel, endpoint=endpoint)
    stopping.set()
    await relaying


async def is_ready(port: int) -> bool:
    """Ask health by its watch: it answers at every change, so nothing is asked twice."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=20)
        async for answer in watching:
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                watching.cancel()
                return True
    return False


@pytest.fixture
async def api(database_url: str, spicedb) -> AsyncIterator[Api]:
    settings = {
        "database_url": database_url,
        "spicedb_endpoint": spicedb.endpoint,
        "spicedb_key": spicedb.key,
    }
    async with a_whole_pemba(settings) as running:
        yield running


@pytest.fixture
def make_serve_settings():
    return serve_settings


@pytest.fixture
def make_api():
    return Api


@pytest.fixture
def until_serving():
    return is_ready
