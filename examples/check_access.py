"""A service that asks Pemba: may this user do that here?

    PEMBA_ENDPOINT=127.0.0.1:50551 PEMBA_KEY=... python examples/check_access.py TENANT WORKSPACE USER

TENANT is a slug and WORKSPACE a path of slugs.  It gives USER the role of a member there, and asks with the token of
that change; it takes the role away, and asks again.  All it needs is the package without extras.
"""

import asyncio
import os
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pemba.v1 import (
    memberships_pb2,
    memberships_pb2_grpc,
    permissions_pb2,
    permissions_pb2_grpc,
    tenants_pb2,
    tenants_pb2_grpc,
    types_pb2,
    workspaces_pb2,
    workspaces_pb2_grpc,
)

SECONDS = 5.0
"""Every call has a deadline: a check that waits for a token waits no longer than that."""


class Pemba:
    """One channel for the whole process; the key goes with every call."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self._call = {"metadata": (("authorization", f"Bearer {key}"),), "timeout": SECONDS}
        self._tenants = tenants_pb2_grpc.TenantServiceStub(channel)
        self._workspaces = workspaces_pb2_grpc.WorkspaceServiceStub(channel)
        self._memberships = memberships_pb2_grpc.MembershipServiceStub(channel)
        self._permissions = permissions_pb2_grpc.PermissionServiceStub(channel)

    async def workspace(self, tenant: str, path: str) -> workspaces_pb2.Workspace:
        """By slugs.  Ids never change: a service keeps them instead of asking each time."""
        found = await self._tenants.GetTenant(tenants_pb2.GetTenantRequest(slug=tenant), **self._call)
        request = workspaces_pb2.GetWorkspaceRequest(tenant_id=found.tenant.id, path=path)
        return (await self._workspaces.GetWorkspace(request, **self._call)).workspace

    async def may(self, user: str, permission: str, workspace: workspaces_pb2.Workspace, token: str = "") -> bool:
        """Whether the user may, with the token's change in force.  A failure is no answer: it raises."""
        request = permissions_pb2.CheckRequest(
            tenant_id=workspace.tenant_id,
            resource=types_pb2.ObjectRef(type="workspace", id=workspace.id),
            permission=permission,
            subject=types_pb2.SubjectRef(type="user", id=user),
            consistency=types_pb2.Consistency(at_least_as_fresh=token) if token else None,
        )
        answer = await self._permissions.Check(request, **self._call)
        return answer.decision == permissions_pb2.DECISION_ALLOWED

    async def make_member(self, user: str, workspace: workspaces_pb2.Workspace) -> str:
        """Give the role; the token of the change."""
        request = memberships_pb2.SetRoleRequest(
            tenant_id=workspace.tenant_id,
            object=types_pb2.ObjectRef(type="workspace", id=workspace.id),
            subject=types_pb2.SubjectRef(type="user", id=user),
            role=types_pb2.ROLE_MEMBER,
        )
        return (await self._memberships.SetRole(request, **self._call)).token

    async def remove(self, user: str, workspace: workspaces_pb2.Workspace) -> str:
        """Take the role away; the token of the change."""
        request = memberships_pb2.RemoveMemberRequest(
            tenant_id=workspace.tenant_id,
            object=types_pb2.ObjectRef(type="workspace", id=workspace.id),
            subject=types_pb2.SubjectRef(type="user", id=user),
        )
        return (await self._memberships.RemoveMember(request, **self._call)).token


def reason(error: grpc.aio.AioRpcError) -> str:
    """Why Pemba refused, as errors.proto lists it (LAST_OWNER, ...): what a program branches on; else the code."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return info.reason
    return error.code().name


async def main(tenant: str, path: str, user: str) -> None:
    async with grpc.aio.insecure_channel(os.environ["PEMBA_ENDPOINT"]) as channel:
        pemba = Pemba(channel, os.environ["PEMBA_KEY"])
        try:
            workspace = await pemba.workspace(tenant, path)
            token = await pemba.make_member(user, workspace)
            print(f"a member: {user} may edit: {await pemba.may(user, 'edit', workspace, token)}")
            token = await pemba.remove(user, workspace)
            print(f"no member: {user} may edit: {await pemba.may(user, 'edit', workspace, token)}")
        except grpc.aio.AioRpcError as error:
            sys.exit(f"{reason(error)}: {error.details()}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
