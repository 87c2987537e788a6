"""Limits as callers meet them: RESOURCE_EXHAUSTED with the time after which to come back."""

import asyncio
from dataclasses import replace

import grpc

from pemba.rpc.limits import Admission
from pemba.v1 import permissions_pb2, types_pb2
from pemba.v1.tenants_pb2 import ListTenantsRequest

TENANT_ID = "ten_01kafa7q0ve8x9m1t2b3c4d5e6"
ANOTHER = "Bearer " + "l" * 32
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def retry_seconds(refusal):
    assert (refusal.code, refusal.reason) == (EXHAUSTED, "RATE_LIMITED")
    return refusal.details["RetryInfo"].retry_delay.ToMilliseconds() / 1000


async def test_a_noisy_caller_is_told_when_to_come_back_and_another_is_let_in(serve):
    running = await serve(admission=Admission(max_calls_of_a_caller=10, caller_calls_per_second=1))
    for _ in range(2):
        await running.call("ListTenants", ListTenantsRequest())
    assert 0 < retry_seconds(await running.refusal("ListTenants", ListTenantsRequest())) <= 1
    await running.call("ListTenants", ListTenantsRequest(), authorization=ANOTHER)


async def test_a_batch_counts_as_what_it_holds_for_its_tenant(serve):
    running = await serve(admission=Admission(max_calls_of_a_caller=10, tenant_calls_per_second=10))
    question = permissions_pb2.BatchCheckItem(
        resource=types_pb2.ObjectRef(type="tenant", id=TENANT_ID),
        permission="view",
        subject=types_pb2.SubjectRef(type="user", id="alice"),
    )
    batch = permissions_pb2.BatchCheckRequest(tenant_id=TENANT_ID, items=[question] * 20)
    one = running.authorizer.answers["batch_check"]
    running.authorizer.answers["batch_check"] = replace(one, results=one.results * 20)
    await running.call("BatchCheck", batch)
    refusal = await running.refusal("BatchCheck", batch, authorization=ANOTHER)
    assert 1 < retry_seconds(refusal) <= 2


async def test_no_caller_has_all_the_calls_that_a_server_takes(serve):
    running = await serve(admission=Admission(max_calls_of_a_caller=2))
    page, release, waiting = running.tenants.answers["list_tenants"], asyncio.Event(), asyncio.Semaphore(0)

    async def held(*_, **__):
        waiting.release()
        await release.wait()
        return page

    running.tenants.answers["list_tenants"] = held
    calls = [asyncio.ensure_future(running.call("ListTenants", ListTenantsRequest())) for _ in range(2)]
    async with asyncio.timeout(10):
        await waiting.acquire()
        await waiting.acquire()
    assert retry_seconds(await running.refusal("ListTenants", ListTenantsRequest())) > 0
    running.tenants.answers["list_tenants"] = page
    await running.call("ListTenants", ListTenantsRequest(), authorization=ANOTHER)
    release.set()
    await asyncio.gather(*calls)
    await running.call("ListTenants", ListTenantsRequest())
