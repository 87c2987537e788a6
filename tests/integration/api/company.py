"""A small company in which roles, inheritance and other tenants could be confused."""

from __future__ import annotations

from dataclasses import dataclass, field

from pemba.v1 import memberships_pb2, permissions_pb2, types_pb2, workspaces_pb2
from pemba.v1.types_pb2 import ROLE_ADMIN, ROLE_MEMBER, ROLE_OWNER, ROLE_VIEWER

PERMISSIONS = ("own", "administer", "edit", "view")
USERS = ("alice", "rita", "ella", "beth", "stan", "saul", "zoë@acme.example", "nobody")


@dataclass
class Company:
    """`workspaces` by slug, the root as `root`; `token` is that of the last change."""

    api: object
    tenant_id: str
    workspaces: dict[str, workspaces_pb2.Workspace] = field(default_factory=dict)
    token: str = ""

    async def role(self, slug: str, user: str, role: int) -> str:
        object_ = types_pb2.ObjectRef(type="tenant", id=self.tenant_id)
        if slug != "tenant":
            object_ = types_pb2.ObjectRef(type="workspace", id=self.workspaces[slug].id)
        request = memberships_pb2.SetRoleRequest(
            tenant_id=self.tenant_id, object=object_, subject=user_ref(user), role=role
        )
        self.token = (await self.api.memberships.SetRole(request, metadata=self.api.metadata())).token or self.token
        return self.token

    async def remove(self, slug: str, user: str) -> str:
        request = memberships_pb2.RemoveMemberRequest(
            tenant_id=self.tenant_id,
            object=types_pb2.ObjectRef(type="workspace", id=self.workspaces[slug].id),
            subject=user_ref(user),
            allow_missing=True,
        )
        self.token = (
            await self.api.memberships.RemoveMember(request, metadata=self.api.metadata())
        ).token or self.token
        return self.token

    async def allowed(self, user: str, permission: str, token: str = "") -> set[str]:
        """Ids of the workspaces on which Check says ALLOWED."""
        ids = [workspace.id for workspace in self.workspaces.values()]
        items = [
            permissions_pb2.BatchCheckItem(
                resource=types_pb2.ObjectRef(type="workspace", id=id_), permission=permission, subject=user_ref(user)
            )
            for id_ in ids
        ]
        request = permissions_pb2.BatchCheckRequest(tenant_id=self.tenant_id, items=items, consistency=fresh(token))
        results = (await self.api.permissions.BatchCheck(request, metadata=self.api.metadata())).results
        assert not any(result.HasField("error") for result in results)
        decisions = [result.decision for result in results]
        return {id_ for id_, d in zip(ids, decisions, strict=True) if d == permissions_pb2.DECISION_ALLOWED}


def user_ref(user: str) -> types_pb2.SubjectRef:
    return types_pb2.SubjectRef(type="user", id=user)


def fresh(token: str) -> types_pb2.Consistency | None:
    return types_pb2.Consistency(at_least_as_fresh=token) if token else None


async def found_company(api, slug: str = "acme") -> Company:
    """Engineering with backend and storage in it, sales with two regions; one of each role; Alice is tenant admin."""
    created = await api.tenant(slug)
    company = Company(api, created.tenant.id, {"root": created.root_workspace})
    tree = {
        "engineering": "root", "sales": "root", "backend": "engineering", "frontend": "engineering",
        "storage": "backend", "north": "sales", "south": "sales",
    }  # fmt: skip
    for child, parent in tree.items():
        company.workspaces[child] = (await api.workspace(company.workspaces[parent], child)).workspace
    await company.role("root", "rita", ROLE_VIEWER)
    await company.role("engineering", "ella", ROLE_MEMBER)
    await company.role("backend", "ella", ROLE_VIEWER)  # twice on one path: to be found once
    await company.role("backend", "beth", ROLE_ADMIN)
    await company.role("storage", "stan", ROLE_OWNER)
    await company.role("sales", "saul", ROLE_ADMIN)
    await company.role("storage", "saul", ROLE_VIEWER)
    await company.role("north", "zoë@acme.example", ROLE_MEMBER)
    return company
