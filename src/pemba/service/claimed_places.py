"""The tenant and the workspace that a credential names, by id or by slug: what it is confined to.

What was found is remembered for five seconds, and for as long as PostgreSQL is away and the server goes on without it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from pemba.errors import NotFound, Unavailable
from pemba.model import SystemScope, TenantId, WorkspaceId, is_typeid
from pemba.storage import tenants, workspaces
from pemba.storage.database import Database, SystemTransaction, TenantTransaction

MAX_KNOWN = 10_000
KNOWN_SECONDS = 5.0

_SCOPE = SystemScope("find the tenant and the workspace that a credential names")

Place = tuple[TenantId, WorkspaceId | None]


class ClaimedPlaces:
    """Finds them."""

    def __init__(self, database: Database, outage_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._outage_seconds = outage_seconds
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], tuple[float, Place]] = OrderedDict()

    async def find(self, tenant: str, workspace: str) -> Place:
        """`tenant` is an id or a slug; `workspace` an id, the slugs from below the root on (`a/b`), or empty.

        Raises NotFound, Unavailable.
        """
        key = (tenant, workspace)
        now = self._clock()
        found_at, place = self._known.get(key, (float("-inf"), None))
        if place is not None and now - found_at < KNOWN_SECONDS:
            return place
        try:
            place = await self._look_up(tenant, workspace)
        except Unavailable:
            if place is None or now - found_at > KNOWN_SECONDS + self._outage_seconds:
                raise
            return place
        except NotFound:
            self._known.pop(key, None)
            raise
        self._known[key] = (now, place)
        self._known.move_to_end(key)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return place

    async def _look_up(self, tenant: str, workspace: str) -> Place:
        async with self._database.begin(_SCOPE) as tx:
            tx_of_tenant = tx.of(await _tenant_id(tx, tenant))
            return tx_of_tenant.tenant_id, await _workspace_id(tx_of_tenant, workspace) if workspace else None


async def _tenant_id(tx: SystemTransaction, named: str) -> TenantId:
    by_id = is_typeid("ten", named)
    found = await tenants.get(tx.of(TenantId(named))) if by_id else await tenants.get_by_slug(tx, named)
    if found is None:
        raise NotFound(f"tenant {named}")
    return found.id


async def _workspace_id(tx: TenantTransaction, named: str) -> WorkspaceId:
    by_id = is_typeid("ws", named)
    found = await (workspaces.get(tx, WorkspaceId(named)) if by_id else workspaces.get_by_path(tx, named.split("/")))
    if found is None:
        raise NotFound(f"workspace {named}")
    return found.id
