"""What must hold (relay-and-tokens, section 7): a file a promise, against real PostgreSQL and SpiceDB.

Each promise is seen to fail where its guard is switched off: the test puts something else in the guard's place for a
while, and demands (`is_broken`) that what it promised does not hold then.  The product knows of no such switch.

promise                                         switched off, one at a time
 1 killed after the write                       the whole contiguous prefix as a batch; the record after the write
 2 killed between the rows of a large change    DELETEs first; the token of the last row
 3 requests delayed                             preconditions; rotation after doubt; the holder's own clock
 4 two at once                                  the head's lock before anything is read; the user's lock
 5 NOTIFY lost, clocks off                      polling; the full look at a new session; the database's clock
 6 a backlog                                    tenants that waited longest first
   poison                                       see integration/relay/test_parking.py
 7 SpiceDB down for long                        an error without a definite answer is tried again
   a schema behind                              see integration/relay/test_parked_answers.py
 8 grant, revoke, grant in one batch            the last operation on a tuple alone
 9 connection lost at COMMIT                    the lookup of the request_id; its place after the head
10 two servers, rollback                        numbers under the head's lock; numbers that roll back
11 tokens                                       the MAC; the look at the heads; the wait
12 repair under live changes                    the desired state read under the head's lock
13 stores and databases restored                what the fences say
   healed                                       see integration/relay/test_healing.py
14 caches                                       each part of the key, each rule beside it
"""

from __future__ import annotations

from typing import Any

import pytest

from pemba.spicedb.client import SpiceDB
from tests.crash.conftest import running
from tests.integration.authorizer.conftest import asking, by_hand, followed
from tests.integration.conftest import bare_spicedb, database, parts
from tests.integration.relay.conftest import postgres_proxy, relaying, seized, serving, spicedb_proxy, store
from tests.truth import stored
from tests.watching import Write

__all__ = [
    "asking",
    "bare_spicedb",
    "by_hand",
    "database",
    "followed",
    "parts",
    "postgres_proxy",
    "relaying",
    "running",
    "seized",
    "serving",
    "spicedb_proxy",
    "store",
]


def is_broken(what: str | None = None) -> Any:
    """A promise that is not kept: an assertion fails, or what was to be refused is not; `what` is what it says."""
    return pytest.raises((AssertionError, pytest.fail.Exception), match=what)


async def holds(store: SpiceDB, tenant_id: str, user: str) -> bool:
    """Whether SpiceDB has any role of that user in the tenant."""
    return user in {found.subject.id for found in await stored(store, tenant_id)}


def touches(writes: list[Write], user: str) -> int:
    """How often a role of that user came."""
    return len([write for write in writes if any(t.subject.id == user for t in write.touched)])
