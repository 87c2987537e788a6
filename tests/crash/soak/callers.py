"""Callers that change and ask at random, whatever happens around them, and keep what they were told."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from pemba.v1 import (
    memberships_pb2,
    memberships_pb2_grpc,
    permissions_pb2,
    permissions_pb2_grpc,
    types_pb2,
    users_pb2,
    users_pb2_grpc,
    workspaces_pb2,
    workspaces_pb2_grpc,
)
from tests.crash.soak.world import World
from tests.stack import Calls, Refusal

USERS = [f"user-{n}" for n in range(6)]
PERMISSIONS = ("view", "edit", "administer", "own")
ROLES = (types_pb2.ROLE_VIEWER, types_pb2.ROLE_MEMBER, types_pb2.ROLE_ADMIN, types_pb2.ROLE_OWNER)
TENANT_ROLES = (types_pb2.ROLE_MEMBER, types_pb2.ROLE_ADMIN)
MAX_WORKSPACES = 10
CALL_SECONDS = 2.5
IN_DOUBT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@dataclass(frozen=True)
class Acknowledged:
    """A change that the caller was told of; `token` may be empty where no check can see it."""

    method: str
    request_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Told:
    """An answer: asked at `began` with `token`, there at `ended` (Unix seconds)."""

    tenant_id: str
    workspace_id: str
    permission: str
    user: str
    token: str
    began: float
    ended: float
    allowed: bool


@dataclass
class Tenant:
    """What callers know of it: workspaces that were there at some time, and tokens."""

    id: str
    root: str
    workspaces: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)


@dataclass
class Callers:
    """Tasks that call both servers until `stop`."""

    world: World
    tenants: list[Tenant]
    seed: int
    acknowledged: list[Acknowledged] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)
    retried: int = 0
    _numbers: Any = field(default_factory=itertools.count)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, changing: int = 4, asking: int = 3) -> None:
        work = [*[self._keep_changing] * changing, *[self._keep_asking] * asking]
        self._tasks = [asyncio.create_task(w(random.Random(f"{self.seed}/{n}"))) for n, w in enumerate(work)]

    async def stop(self) -> None:
        """Every change has its outcome then."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    # -- changes ------------------------------------------------------------------------------------------

    async def _keep_changing(self, dice: random.Random) -> None:
        while not self._stopping.is_set():
            tenant = dice.choice(self.tenants)
            [change] = dice.choices(list(CHANGES), list(CHANGES.values()))
            method, request = change(tenant, dice)
            request.request_id = f"{method}-{next(self._numbers)}"
            response = await self._until_definite(method, request, dice)
            if response is not None:
                self.acknowledged.append(Acknowledged(method, request.request_id, response.token))
                self.changes[method] += 1
                if method == "CreateWorkspace":
                    tenant.workspaces.append(response.workspace.id)
                if response.token:
                    tenant.tokens = [*tenant.tokens[-5:], response.token]
            await asyncio.sleep(dice.uniform(0.0, 0.08))

    async def _until_definite(self, method: str, request: Any, dice: random.Random) -> Any:
        """The response, or None where it was refused; what is in doubt is sent again, to any server."""
        while True:
            try:
                return await _mutate(dice.choice(self.world.calls), method, request)
            except grpc.aio.AioRpcError as error:
                refusal = Refusal(error)
            if refusal.code not in IN_DOUBT:
                self.refused[refusal.reason] += 1
                if refusal.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT):
                    self.strange.append(f"{method}: {refusal}")
                return None
            self.retried += 1
            await asyncio.sleep(min(refusal.retry_seconds or 0.1, 0.3))

    # -- questions ----------------------------------------------------------------------------------------

    async def _keep_asking(self, dice: random.Random) -> None:
        while not self._stopping.is_set():
            calls = dice.choice(self.world.calls)
            tenant = dice.choice(self.tenants)
            token = dice.choice((*tenant.tokens, "")) if dice.random() < 0.6 else (tenant.tokens or [""])[-1]
            token = "" if dice.random() < 0.3 else token
            try:
                if dice.random() < 0.2:
                    await self._ask_several(calls, tenant, token, dice)
                else:
                    await self._ask(calls, tenant, token, dice)
            except grpc.aio.AioRpcError as error:
                refusal = Refusal(error)
                self.refused[f"check: {refusal.reason or refusal.code.name}"] += 1
                if refusal.code not in IN_DOUBT:
                    self.strange.append(f"Check: {refusal}")
                await asyncio.sleep(0.05)
            await asyncio.sleep(dice.uniform(0.0, 0.03))

    async def _ask(self, calls: Calls, tenant: Tenant, token: str, dice: random.Random) -> None:
        workspace, permission, user = _question(tenant, dice)
        request = permissions_pb2.CheckRequest(
            tenant_id=tenant.id,
            resource=types_pb2.ObjectRef(type="workspace", id=workspace),
            permission=permission,
            subject=types_pb2.SubjectRef(type="user", id=user),
            consistency=_consistency(token),
        )
        began = time.time()
        stub = permissions_pb2_grpc.PermissionServiceStub(calls.channel)
        answer = await stub.Check(request, metadata=calls.metadata, timeout=CALL_SECONDS)
        self._note(tenant, workspace, permission, user, token, began, answer)
        if dice.random() < 0.2:
            tenant.tokens = [*tenant.tokens[-5:], answer.token]

    async def _ask_several(self, calls: Calls, tenant: Tenant, token: str, dice: random.Random) -> None:
        asked = [(tenant, *_question(tenant, dice)) for _ in range(4)]
        other = dice.choice(self.tenants)
        asked.append((other, *_question(other, dice)))
        items = [
            permissions_pb2.BatchCheckItem(
                tenant_id=of.id,
                resource=types_pb2.ObjectRef(type="workspace", id=workspace),
                permission=permission,
                subject=types_pb2.SubjectRef(type="user", id=user),
            )
            for of, workspace, permission, user in asked
        ]
        request = permissions_pb2.BatchCheckRequest(items=items, consistency=_consistency(token))
        began = time.time()
        stub = permissions_pb2_grpc.PermissionServiceStub(calls.channel)
        answer = await stub.BatchCheck(request, metadata=calls.metadata, timeout=CALL_SECONDS)
        for (of, workspace, permission, user), result in zip(asked, answer.results, strict=True):
            if result.HasField("error"):
                self.refused["check: an item of a batch"] += 1
            else:
                self._note(of, workspace, permission, user, token, began, result)

    def _note(
        self, tenant: Tenant, workspace: str, permission: str, user: str, token: str, began: float, answer: Any
    ) -> None:
        allowed = answer.decision == permissions_pb2.DECISION_ALLOWED
        if not allowed and answer.decision != permissions_pb2.DECISION_DENIED:
            self.strange.append(f"Check: {answer}")
        self.told.append(Told(tenant.id, workspace, permission, user, token, began, time.time(), allowed))


def _question(tenant: Tenant, dice: random.Random) -> tuple[str, str, str]:
    return dice.choice((tenant.root, *tenant.workspaces)), dice.choice(PERMISSIONS), dice.choice(USERS)


def _consistency(token: str) -> types_pb2.Consistency | None:
    return types_pb2.Consistency(at_least_as_fresh=token) if token else None


async def _mutate(calls: Calls, method: str, request: Any) -> Any:
    stubs: dict[str, Callable[[Any], Any]] = defaultdict(
        lambda: workspaces_pb2_grpc.WorkspaceServiceStub,
        dict.fromkeys(("SetRole", "SetRoles", "RemoveMember"), memberships_pb2_grpc.MembershipServiceStub)
        | dict.fromkeys(("SuspendUser", "ActivateUser"), users_pb2_grpc.UserServiceStub),
    )
    call: Awaitable[Any] = getattr(stubs[method](calls.channel), method)(
        request, metadata=calls.metadata, timeout=CALL_SECONDS
    )
    return await call


def _object(tenant: Tenant, dice: random.Random) -> tuple[types_pb2.ObjectRef, Any]:
    """Mostly a workspace, sometimes the tenant itself; and a role that can be had there."""
    if dice.random() < 0.15:
        return types_pb2.ObjectRef(type="tenant", id=tenant.id), dice.choice(TENANT_ROLES)
    id_ = dice.choice((tenant.root, *tenant.workspaces))
    return types_pb2.ObjectRef(type="workspace", id=id_), dice.choice(ROLES)


def _user(dice: random.Random) -> types_pb2.SubjectRef:
    return types_pb2.SubjectRef(type="user", id=dice.choice(USERS))


def _set_role(tenant: Tenant, dice: random.Random) -> tuple[str, Any]:
    object_, role = _object(tenant, dice)
    return "SetRole", memberships_pb2.SetRoleRequest(
        tenant_id=tenant.id, object=object_, subject=_user(dice), role=role
    )


def _set_roles(tenant: Tenant, dice: random.Random) -> tuple[str, Any]:
    chosen = {(str(object_.id), user.id): (object_, user, role) for object_, role, user in
              ((*_object(tenant, dice), _user(dice)) for _ in range(4))}  # fmt: skip
    assignments = [
        memberships_pb2.RoleAssignment(object=object_, subject=user, role=role)
        for object_, user, role in chosen.values()
    ]
    return "SetRoles", memberships_pb2.SetRolesRequest(tenant_id=tenant.id, assignments=assignments)


def _remove(tenant: Tenant, dice: random.Random) -> tuple[str, Any]:
    object_, _ = _object(tenant, dice)
    return "RemoveMember", memberships_pb2.RemoveMemberRequest(
        tenant_id=tenant.id, object=object_, subject=_user(dice), allow_missing=True
    )


def _create(tenant: Tenant, dice: random.Random) -> tuple[str, Any]:
    if len(tenant.workspaces) >= MAX_WORKSPACES:
        tenant.workspaces.pop(0)
    parent = dice.choice((tenant.root, *tenant.workspaces[-3:]))
    slug = f"ws-{dice.randrange(10**6)}"
    return "CreateWorkspace", workspaces_pb2.CreateWorkspaceRequest(
        tenant_id=tenant.id, parent_id=parent, slug=slug, name=slug, owner=dice.choice((*USERS, ""))
    )


def _move(tenant: Tenant, dice: random.Random) -> tuple[str, Any]:
    near = (tenant.root, *tenant.workspaces)
    return "MoveWorkspace", workspaces_pb2.MoveWorkspaceRequest(
        tenant_id=tenant.id, workspace_id=dice.choice(near), new_parent_id=dice.choice(near)
    )


def _of_one(method: str) -> Callable[[Tenant, random.Random], tuple[str, Any]]:
    def make(tenant: Tenant, dice: random.Random) -> tuple[str, Any]:
        request = getattr(workspaces_pb2, f"{method}Request")
        near = tenant.workspaces or [tenant.root]
        return method, request(tenant_id=tenant.id, workspace_id=dice.choice(near))

    return make


def _of_user(method: str) -> Callable[[Tenant, random.Random], tuple[str, Any]]:
    def make(_: Tenant, dice: random.Random) -> tuple[str, Any]:
        return method, getattr(users_pb2, f"{method}Request")(user_id=dice.choice(USERS))

    return make


CHANGES: dict[Callable[[Tenant, random.Random], tuple[str, Any]], int] = {
    _set_role: 30,
    _set_roles: 8,
    _remove: 22,
    _create: 10,
    _move: 6,
    _of_one("ArchiveWorkspace"): 5,
    _of_one("UnarchiveWorkspace"): 6,
    _of_one("DeleteWorkspace"): 4,
    _of_user("SuspendUser"): 3,
    _of_user("ActivateUser"): 5,
}
"""How a request is made, and how often in a hundred."""
