"""A `serve` that stood still (a stopped process, a suspended machine) answers nothing from before."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import psutil

from tests.stack import Processes, calling
from tests.truth import eventually


async def test_a_server_that_stood_still_does_not_answer_from_what_it_knew(running: Processes) -> None:
    """The question waits in its socket, so that it is the first thing it sees when it wakes."""
    await running.relay()
    still, other = await running.serve(), await running.serve()
    async with (
        calling(still.settings["PEMBA_GRPC_LISTEN"]) as asked,
        calling(other.settings["PEMBA_GRPC_LISTEN"]) as calls,
    ):
        root = (await calls.tenant("acme")).root_workspace
        for _ in range(5):
            granted = await calls.grant(root, "bob")
            assert await asked.may_view(root, "bob", granted)
            assert await asked.may_view(root, "bob"), "known by now"
            process = psutil.Process(still.pid)
            process.suspend()
            revoked = await calls.revoke(root, "bob")
            assert not await calls.may_view(root, "bob", revoked)
            waiting = [asyncio.create_task(asked.may_view(root, "bob")) for _ in range(5)]
            await eventually(partial(is_past, time.monotonic() + 0.3))  # longer than a look may be old
            process.resume()
            assert set(await asyncio.gather(*waiting)) == {False}


async def is_past(moment: float) -> bool:
    return time.monotonic() > moment
