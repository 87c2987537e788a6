"""The records that are asked about, and what they decide: pure, the same for the same arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from pemba.model import Permission, Role

FAN_OUT = 3
PERMISSIONS = (Permission.OWN, Permission.ADMINISTER, Permission.EDIT, Permission.VIEW)
ROLES = (Role.OWNER, Role.ADMIN, Role.MEMBER, Role.VIEWER)
"""A user each, on every workspace but the root; a role gives the permission of the same place, and those after it."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Workspace 0 is the root; `roles` is (workspace, user) to role.  The first user is the tenant's admin."""

    slug: str
    users: tuple[str, ...]
    workspaces: int
    roles: Mapping[tuple[int, str], Role]

    def line(self, workspace: int) -> Iterator[int]:
        """The workspace and those above it, up to the root."""
        yield workspace
        while workspace > 0:
            workspace = parent(workspace)
            yield workspace


@dataclass(frozen=True, slots=True)
class Question:
    """May the user do this on a workspace?  `tenant` and `workspace` are places in the data set."""

    tenant: int
    workspace: int
    permission: Permission
    user: str


@dataclass(frozen=True, slots=True)
class DataSet:
    tenants: tuple[Tenant, ...]

    def allows(self, question: Question) -> bool:
        """What the records say."""
        tenant = self.tenants[question.tenant]
        if question.user == tenant.users[0]:
            return True
        held = (tenant.roles.get((workspace, question.user)) for workspace in tenant.line(question.workspace))
        return any(role and ROLES.index(role) <= PERMISSIONS.index(question.permission) for role in held)

    @property
    def size(self) -> int:
        """How many different questions there are."""
        return sum(t.workspaces * len(t.users) * len(PERMISSIONS) for t in self.tenants)

    def question(self, number: int) -> Question:
        """The question of that number, 0 to size - 1; every tenant has as many."""
        each = self.size // len(self.tenants)
        place, rest = divmod(number, each)
        tenant = self.tenants[place]
        rest, permission = divmod(rest, len(PERMISSIONS))
        workspace, user = divmod(rest, len(tenant.users))
        return Question(place, workspace, PERMISSIONS[permission], tenant.users[user])


def make(*, tenants: int, workspaces: int, users: int, seed: int) -> DataSet:
    """`workspaces` below the root of each tenant, in a tree of fan-out 3; at least 5 users."""
    random = Random(seed)  # noqa: S311  no secret: the same data set for the same seed
    return DataSet(tuple(_tenant(number, workspaces, users, random) for number in range(tenants)))


def parent(workspace: int) -> int:
    """The workspace above one that is not the root."""
    return (workspace - 1) // FAN_OUT


def _tenant(number: int, workspaces: int, users: int, random: Random) -> Tenant:
    names = tuple(f"user-{number}-{n}" for n in range(users))
    roles = {
        (workspace, user): role
        for workspace in range(1, workspaces + 1)
        for user, role in zip(random.sample(names[1:], len(ROLES)), ROLES, strict=True)
    }
    return Tenant(f"bench-{number}", names, workspaces + 1, roles)
