"""The companies of `pemba demo`, and checks to try on them: a description, which `pemba demo` loads.

All of it is invented.  Users are written by their id, several separated by blanks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Workspace:
    """`path` as in `a/b/c`, empty for the root; `roles` is role to users."""

    path: str
    name: str
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """A tenant; `roles` are those on the tenant itself, besides its first admin's.  Workspaces: parents first."""

    slug: str
    name: str
    first_admin: str
    roles: Mapping[str, str]
    workspaces: tuple[Workspace, ...]

    def assignments(self) -> Iterator[tuple[str | None, str, str]]:
        """Every (path, user, role); the path is None for the tenant itself."""
        yield None, self.first_admin, "admin"
        for path, roles in [(None, self.roles), *((each.path, each.roles) for each in self.workspaces)]:
            for role, users in roles.items():
                for user in users.split():
                    yield path, user, role


@dataclass(frozen=True, slots=True)
class Check:
    """A question about a company, its answer, and what makes it so."""

    company: str
    user: str
    permission: str
    resource: str
    answer: str
    why: str

    @property
    def command(self) -> str:
        """To be typed as it stands."""
        return f"pemba check user:{self.user} {self.permission} {self.resource} --tenant {self.company}"


COMPANIES = (
    Company(
        slug="globex",
        name="Globex Energy",
        first_admin="ada",
        roles={"member": "boris carmen deepak elif farid greta hana ivan jun kofi lena mateo nadia omar priya"},
        workspaces=(
            Workspace("", "", {"viewer": "omar"}),
            Workspace("operations", "Operations", {"owner": "boris", "viewer": "carmen"}),
            Workspace("operations/plants", "Plants", {"admin": "deepak", "member": "lena"}),
            Workspace("operations/plants/north", "North plant", {"owner": "elif", "member": "farid"}),
            Workspace("operations/plants/north/control-room", "Control room", {"member": "greta hana"}),
            Workspace("operations/plants/north/turbines", "Turbines", {"admin": "farid", "viewer": "kofi"}),
            Workspace("operations/plants/south", "South plant", {"owner": "ivan", "member": "jun"}),
            Workspace("operations/plants/south/turbines", "Turbines", {"member": "kofi"}),
            Workspace("operations/safety", "Safety", {"owner": "carmen", "viewer": "elif ivan"}),
            Workspace("research", "Research", {"owner": "mateo"}),
            Workspace("research/storage", "Energy storage", {"admin": "nadia"}),
            Workspace("research/storage/batteries", "Batteries", {"member": "priya jun"}),
            Workspace("research/storage/batteries/prototype", "Prototype", {"owner": "priya", "viewer": "deepak"}),
            Workspace("research/storage/hydrogen", "Hydrogen", {"member": "hana"}),
        ),
    ),
    Company(
        slug="initech",
        name="Initech Software",
        first_admin="quentin",
        roles={
            "admin": "rosa",
            "member": "samir tara uma viktor wanda xavier yuki zola anton bianca cyrus priya",
        },
        workspaces=(
            Workspace("", "", {"viewer": "cyrus"}),
            Workspace("engineering", "Engineering", {"owner": "samir"}),
            Workspace("engineering/platform", "Platform", {"admin": "tara", "member": "uma"}),
            Workspace("engineering/platform/identity", "Identity", {"owner": "viktor", "viewer": "priya"}),
            Workspace("engineering/platform/identity/sessions", "Sessions", {"member": "wanda"}),
            Workspace("engineering/platform/builds", "Builds", {"member": "xavier"}),
            Workspace("engineering/products", "Products", {"admin": "yuki"}),
            Workspace("engineering/products/reports", "Reports", {"member": "wanda xavier"}),
            Workspace("engineering/products/reports/cover-sheets", "Cover sheets", {"owner": "yuki"}),
            Workspace("finance", "Finance", {"owner": "zola"}),
            Workspace("finance/payroll", "Payroll", {"admin": "anton"}),
            Workspace("finance/payroll/salaries", "Salaries", {"member": "bianca"}),
            Workspace("finance/payroll/salaries/this-year", "This year", {"viewer": "rosa"}),
        ),
    ),
    Company(
        slug="hooli",
        name="Hooli Pictures",
        first_admin="daria",
        roles={"member": "emil fatou gustav helga idris jana karim luisa milo nora"},
        workspaces=(
            Workspace("", "", {"admin": "emil"}),
            Workspace("studio", "Studio", {"owner": "fatou"}),
            Workspace("studio/series", "Series", {"admin": "gustav"}),
            Workspace("studio/series/harbour", "Harbour", {"owner": "helga", "member": "idris jana"}),
            Workspace("studio/series/harbour/season-two", "Season two", {"admin": "jana", "viewer": "karim"}),
            Workspace("studio/films", "Films", {"member": "karim"}),
            Workspace("studio/films/lighthouse", "Lighthouse", {"owner": "luisa"}),
            Workspace("studio/films/lighthouse/edit-suite", "Edit suite", {"member": "milo"}),
            Workspace("distribution", "Distribution", {"owner": "milo"}),
            Workspace("distribution/festivals", "Festivals", {"viewer": "helga luisa"}),
        ),
    ),
)

CHECKS = (
    Check(
        *("globex", "lena", "edit", "workspace:operations/plants/north/turbines"),
        *("ALLOWED", "lena is a member of operations/plants, and a role holds on all below"),
    ),
    Check(
        *("globex", "lena", "administer", "workspace:operations/plants/north/turbines"),
        *("DENIED", "a member may edit and view, and no more"),
    ),
    Check(
        *("globex", "lena", "view", "workspace:operations"),
        *("DENIED", "roles run down the tree, never up"),
    ),
    Check(
        *("globex", "omar", "view", "workspace:research/storage/batteries/prototype"),
        *("ALLOWED", "omar is a viewer of the root, and so of every workspace"),
    ),
    Check(
        *("globex", "ada", "own", "workspace:operations/plants/south"),
        *("ALLOWED", "ada is an admin of the tenant, and its admins own every workspace"),
    ),
    Check(
        *("initech", "priya", "view", "workspace:engineering/platform/identity"),
        *("ALLOWED", "users are global: priya of globex is a viewer here too"),
    ),
    Check(
        *("initech", "ada", "view", "workspace:engineering"),
        *("DENIED", "ada is an admin of globex, which says nothing about initech"),
    ),
    Check(
        *("hooli", "nora", "view", "tenant:hooli"),
        *("ALLOWED", "nora is a member of the tenant, and sees it"),
    ),
    Check(
        *("hooli", "nora", "view", "workspace:/"),
        *("DENIED", "a member of the tenant sees no workspace without a role on it or above it"),
    ),
)
