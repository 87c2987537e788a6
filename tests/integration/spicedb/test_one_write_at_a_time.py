"""SpiceDB's memory datastore can lose one of two simultaneous writes: none is sent before the last one is answered."""

from __future__ import annotations

import asyncio

import pytest

from pemba.model import ObjectRef, Operation, SubjectRef, Tuple, TupleOperation
from pemba.spicedb.client import SpiceDB
from tests.proxy import Proxy
from tests.truth import eventually


@pytest.mark.parametrize("one_at_a_time", [True, False])
async def test_a_write_waits_for_the_answer_to_the_one_before(spicedb, one_at_a_time: bool) -> None:
    proxy = Proxy.before_tcp(spicedb.endpoint)
    await proxy.accept()
    client = SpiceDB.connect(proxy.endpoint, spicedb.key, one_write_at_a_time=one_at_a_time)

    async def write(user: str) -> None:
        place = ObjectRef("workspace", f"one-at-a-time/{one_at_a_time}")
        operation = TupleOperation(Operation.TOUCH, Tuple(place, "viewer", SubjectRef("user", user)))
        await client.write([operation], metadata={}, timeout=20)

    answer = proxy.trap(b"first-one")
    first = asyncio.create_task(write("first-one"))
    await answer.answered.wait()
    second = asyncio.create_task(write("second-one"))
    if one_at_a_time:
        await asyncio.wait([second], timeout=0.3)
        assert not proxy.seen(b"second-one")
    else:
        await eventually(lambda: is_seen(proxy, b"second-one"))
    answer.release()
    await asyncio.gather(first, second)
    assert proxy.seen(b"second-one")
    await client.close()
    await proxy.refuse()


async def is_seen(proxy: Proxy, pattern: bytes) -> int:
    return proxy.seen(pattern)
