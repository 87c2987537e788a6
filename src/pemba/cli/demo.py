"""`pemba demo`: invented companies to try things on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pemba.cli.output import Output, print_json

if TYPE_CHECKING:
    from pemba.cli.connection import Connection
    from pemba.cli.demo_load import Asked, Loaded
    from pemba.cli.progress import Progress


def demo(pemba: Connection) -> None:
    """Load three invented companies, and show checks to try on them; doing so again changes nothing."""
    from pemba.cli.progress import Progress

    progress = Progress("pemba demo")
    try:
        loaded, asked = load_and_ask(pemba, progress)
    finally:
        progress.end()
    if pemba.output is Output.JSON:
        print_json(_as_dict(loaded, asked))
    else:
        print("\n".join([*summary(loaded), *to_try(asked)]))


def load_and_ask(pemba: Connection, progress: Progress) -> tuple[list[Loaded], list[Asked]]:
    """Load every company, then ask every check with all of it in force.  Raises CallFailed."""
    from pemba.cli.demo_load import ask, load
    from pemba.dev.demo import CHECKS, COMPANIES

    loaded = [load(pemba, company, progress) for company in COMPANIES]
    return loaded, ask(pemba, loaded, CHECKS)


def summary(loaded: Sequence[Loaded]) -> list[str]:
    """A line a company, and what this run changed."""
    changed = sum(each.added_workspaces + each.added_roles for each in loaded)
    lines = [f"{each.company.name} (tenant {each.company.slug}): {_size(each)}" for each in loaded]
    return [*lines, "loaded" if changed else "all of it was there already: nothing changed"]


def to_try(asked: Sequence[Asked]) -> list[str]:
    """The checks as a person types them, each with its answer and the reason."""
    lines = ["", "Checks to try:"]
    for each in asked:
        lines += ["", f"  {each.check.command}", f"  {each.answer}: {each.why}"]
    return lines


def _size(loaded: Loaded) -> str:
    company = loaded.company
    users = len({user for _, user, _ in company.assignments()})
    added = loaded.added_workspaces + loaded.added_roles
    news = f"; added {loaded.added_workspaces} workspaces, {loaded.added_roles} roles" if added else ""
    return f"{len(company.workspaces)} workspaces, {users} users{news}"


def _as_dict(loaded: Sequence[Loaded], asked: Sequence[Asked]) -> dict[str, object]:
    return {
        "tenants": [
            {
                "slug": each.company.slug,
                "tenant_id": each.tenant_id,
                "added_workspaces": each.added_workspaces,
                "added_roles": each.added_roles,
            }
            for each in loaded
        ],
        "checks": [{"command": each.check.command, "answer": each.answer, "why": each.why} for each in asked],
    }
