"""Puts the data set there through the API, and waits until the relay has delivered it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from pemba.bench.dataset import DataSet, Tenant, parent
from pemba.dev.ready import Ready
from pemba.model import SystemScope, TenantId
from pemba.storage import outbox
from pemba.storage.database import Database
from pemba.v1 import memberships_pb2, tenants_pb2, types_pb2, workspaces_pb2
from pemba.v1.memberships_pb2_grpc import MembershipServiceStub
from pemba.v1.tenants_pb2_grpc import TenantServiceStub
from pemba.v1.workspaces_pb2_grpc import WorkspaceServiceStub

WRITERS = 20
"""Users of the first tenant whose roles the mutations of one tenant change; nothing is asked about any writer."""

MARKER = "marker"

_AT_ONCE = 16
_MAX_ASSIGNMENTS = 1000
_CALL_SECONDS = 60.0
_DELIVERY_SECONDS = 120.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Loaded:
    """The data set with the ids that it got; workspaces by place, the root first."""

    dataset: DataSet
    tenants: tuple[TenantId, ...]
    workspaces: tuple[tuple[str, ...], ...]


class Loader:
    """Several tenants at once: within a tenant one change waits for the other."""

    def __init__(self, ready: Ready, channel: grpc.aio.Channel) -> None:
        self._metadata = (("authorization", f"Bearer {ready.key}"),)
        self._tenants = TenantServiceStub(channel)
        self._workspaces = WorkspaceServiceStub(channel)
        self._memberships = MembershipServiceStub(channel)
        self._done = 0

    async def load(self, dataset: DataSet, progress: Callable[[str], None]) -> Loaded:
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(place: int, tenant: Tenant) -> tuple[TenantId, tuple[str, ...]]:
            async with turn:
                made = await self._tenant(tenant, WRITERS if place == 0 else 0)
            self._done += 1
            progress(f"loading: {self._done} of {len(dataset.tenants)} tenants")
            return made

        made = await asyncio.gather(*(one(place, tenant) for place, tenant in enumerate(dataset.tenants)))
        return Loaded(dataset, tuple(t for t, _ in made), tuple(w for _, w in made))

    async def mark(self, loaded: Loaded) -> tuple[TenantId, str]:
        """Make `MARKER` a viewer: who sees that sees all that was loaded before.  (Tenant, workspace.)"""
        tenant, workspace = loaded.tenants[-1], loaded.workspaces[-1][-1]
        request = memberships_pb2.SetRoleRequest(
            tenant_id=tenant,
            object=types_pb2.ObjectRef(type="workspace", id=workspace),
            subject=types_pb2.SubjectRef(type="user", id=MARKER),
            role=types_pb2.ROLE_VIEWER,
        )
        await self._memberships.SetRole(request, timeout=_CALL_SECONDS, metadata=self._metadata)
        return tenant, workspace

    async def _tenant(self, tenant: Tenant, writers: int) -> tuple[TenantId, tuple[str, ...]]:
        request = tenants_pb2.CreateTenantRequest(slug=tenant.slug, name=tenant.slug, first_admin=tenant.users[0])
        made = await self._tenants.CreateTenant(request, timeout=_CALL_SECONDS, metadata=self._metadata)
        ids = [made.root_workspace.id]
        for place in range(1, tenant.workspaces):
            ids.append(await self._workspace(made.tenant.id, ids[parent(place)], place))
        await self._roles(made.tenant.id, _assignments(tenant, made.tenant.id, ids, writers))
        return TenantId(made.tenant.id), tuple(ids)

    async def _workspace(self, tenant_id: str, parent_id: str, place: int) -> str:
        name = f"workspace-{place}"
        request = workspaces_pb2.CreateWorkspaceRequest(tenant_id=tenant_id, parent_id=parent_id, slug=name, name=name)
        made = await self._workspaces.CreateWorkspace(request, timeout=_CALL_SECONDS, metadata=self._metadata)
        return made.workspace.id

    async def _roles(self, tenant_id: str, assignments: list[memberships_pb2.RoleAssignment]) -> None:
        for start in range(0, len(assignments), _MAX_ASSIGNMENTS):
            part = assignments[start : start + _MAX_ASSIGNMENTS]
            request = memberships_pb2.SetRolesRequest(tenant_id=tenant_id, assignments=part)
            await self._memberships.SetRoles(request, timeout=_CALL_SECONDS, metadata=self._metadata)


def _assignments(tenant: Tenant, tenant_id: str, ids: list[str], writers: int) -> list[memberships_pb2.RoleAssignment]:
    members = [("tenant", tenant_id, user, "member") for user in tenant.users[1:]]
    roles = [("workspace", ids[place], user, str(role)) for (place, user), role in tenant.roles.items()]
    names = [name for n in range(writers + 1) for name in (writer(n), sql_writer(n))]
    writing = [("workspace", id_, name, "viewer") for name in names for id_ in ids[1:]]
    return [
        memberships_pb2.RoleAssignment(
            object=types_pb2.ObjectRef(type=kind, id=id_),
            subject=types_pb2.SubjectRef(type="user", id=user),
            role=types_pb2.Role.Value(f"ROLE_{role.upper()}"),
        )
        for kind, id_, user, role in [*members, *roles, *writing]
    ]


def writer(number: int) -> str:
    """Number 0 is in every tenant."""
    return f"writer-{number}"


def sql_writer(number: int) -> str:
    """In the place of `writer`, for mutations that do not go through the API."""
    return f"sql-writer-{number}"


async def undelivered(database: Database) -> dict[TenantId, int]:
    """Rows that the relay has not delivered yet, by tenant."""
    async with database.single(SystemScope("bench")) as tx:
        return {each.tenant_id: each.undelivered for each in await outbox.status(tx, every=False, limit=100_000)}


async def delivered(database: Database) -> None:
    """Wait until everything is.  Raises TimeoutError after two minutes."""
    async with asyncio.timeout(_DELIVERY_SECONDS):
        while await undelivered(database):  # noqa: ASYNC110  another process delivers
            await asyncio.sleep(_POLL_SECONDS)
