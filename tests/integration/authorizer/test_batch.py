"""A batch over several tenants: what fails for one of them leaves the others' answers."""

from __future__ import annotations

import asyncio

import pytest

from pemba.authorizer import Answer, Authorizer, Consistency, Decision, Question
from pemba.authorizer.decisions import Decisions
from pemba.authorizer.feed import Feed
from pemba.errors import Reason, Unavailable
from pemba.model import ObjectRef, SubjectRef, TenantId
from pemba.spicedb.client import SpiceDB


class SilentAbout(SpiceDB):
    """Away for one tenant's questions."""

    tenant_id = ""

    async def check_bulk(self, questions, freshness, timeout):
        if any(question.resource.id.startswith(self.tenant_id) for question in questions):
            raise Unavailable(Reason.SPICEDB_UNAVAILABLE, "SpiceDB cannot be reached")
        return await super().check_bulk(questions, freshness, timeout)


async def test_spicedb_failing_for_one_tenant_is_that_tenants_error_alone(parts, spicedb) -> None:
    (broken, _), (well, _) = [await parts.tenant() for _ in range(2)]
    client = SilentAbout.connect(spicedb.endpoint, spicedb.key)
    client.tenant_id = broken.id
    feed = Feed(parts.database, outage_seconds=60)
    await feed.poll()
    authorizer = Authorizer(parts.database, client, parts.signer, feed, Decisions(10, 60), 10)
    deadline = asyncio.get_running_loop().time() + 10

    def about(tenant_id: TenantId) -> tuple[TenantId, Question]:
        return tenant_id, Question(ObjectRef("tenant", tenant_id), "view", SubjectRef("user", "nobody"))

    items = [about(well.id), about(broken.id), about(well.id)]
    first, failed, last = (await authorizer.batch_check(parts.system, items, Consistency(), deadline)).results
    assert isinstance(failed, Unavailable)
    assert failed.reason is Reason.SPICEDB_UNAVAILABLE
    for answer in (first, last):
        assert isinstance(answer, Answer)
        assert answer.decision is Decision.DENIED
    with pytest.raises(Unavailable):
        await authorizer.batch_check(parts.system, [about(broken.id)], Consistency(), deadline)
    await client.close()
