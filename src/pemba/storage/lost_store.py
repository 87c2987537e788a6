"""Another life of SpiceDB's data: what PostgreSQL remembers of the last one is forgotten, in one transaction.

For a store that holds nothing.  Then no fence of the last life is in it, so leases begin anew with fences of their own;
revisions of the last life (ZedTokens) mean nothing any more, so tenants are asked about fully consistently until
something of theirs is written; and the new store epoch tells every server to forget what it keeps.
"""

from __future__ import annotations

import asyncpg

from pemba.storage.database import CONNECT_SECONDS, RELAY_ROLE
from pemba.storage.errors import translated

_COMMAND_SECONDS = 60.0

_NEW_EPOCH = "UPDATE installation SET store_epoch = gen_random_uuid()"
# Whoever holds a shard finds that its lease is another's: nothing that it has under way can be recorded any more.
_NEW_LEASES = "UPDATE relay_lease SET epoch = epoch + 1, n = 0, holder = NULL, lease_until = NULL"
_NO_REVISIONS = "UPDATE tenant_delivery SET zedtoken = NULL WHERE zedtoken IS NOT NULL"


async def forget(url: str) -> None:
    """Begin with an empty store.  What is delivered already is not delivered again: repair it afterwards.

    Raises Unavailable.
    """
    with translated():
        connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, command_timeout=_COMMAND_SECONDS)
        try:
            async with connection.transaction():
                # The lease rows first: a delivery that is being recorded holds one, and so ends before this.
                await connection.execute(f"SET LOCAL ROLE {RELAY_ROLE}")
                await connection.execute(_NEW_LEASES)
                await connection.execute(_NO_REVISIONS)
                await connection.execute("RESET ROLE")
                await connection.execute(_NEW_EPOCH)
        finally:
            await connection.close(timeout=2)
