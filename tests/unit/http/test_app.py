"""What a scraper and an orchestrator see of a process."""

import asyncio
import json
import signal

import pytest

from pemba.http.app import build_http
from pemba.http.server import run_http


async def get(port: int, path: str) -> tuple[int, str]:
    """One request on a connection of its own: status and body."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 5)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: pemba\r\nConnection: close\r\n\r\n".encode())
    raw = (await asyncio.wait_for(reader.read(), 5)).decode()
    writer.close()
    head, _, body = raw.partition("\r\n\r\n")
    return int(head.split()[1]), body


@pytest.fixture
def reasons():
    return []


@pytest.fixture
async def http(reasons):
    running = await run_http(build_http(lambda: reasons), "127.0.0.1:0")
    yield running
    await asyncio.wait_for(running.stop(), 10)


async def test_a_process_is_alive_while_it_is_not_ready(http, reasons):
    reasons.append("PostgreSQL cannot be reached")
    assert await get(http.port, "/livez") == (200, "ok\n")


async def test_readiness_is_200_without_reasons_and_503_with_them(http, reasons):
    status, body = await get(http.port, "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})
    reasons.append("the schema is not applied")
    status, body = await get(http.port, "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["the schema is not applied"]})


async def test_metrics_are_prometheus_text_with_pembas_own(http):
    status, body = await get(http.port, "/metrics")
    assert status == 200
    for name in (
        "pemba_rpc_seconds",
        "pemba_outbox_rows_delivered_total",
        "pemba_delivery_lag_seconds",
        "pemba_outbox_undelivered_rows",
        "pemba_relay_write_failures_total",
    ):
        assert f"# TYPE {name}" in body


async def test_an_unknown_path_is_404(http):
    assert (await get(http.port, "/"))[0] == 404


async def test_signals_stay_with_whoever_owns_the_loop():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    running = await run_http(build_http(list), "127.0.0.1:0")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    await running.stop()


async def test_after_stop_nothing_listens():
    running = await run_http(build_http(list), "127.0.0.1:0")
    await running.stop()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", running.port)


async def test_an_address_in_use_is_an_os_error(http):
    with pytest.raises(OSError, match="in use"):
        await run_http(build_http(list), f"127.0.0.1:{http.port}")
