"""uvicorn inside an event loop that somebody else owns, signals included."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

_STOP_SECONDS = 5


@dataclass(frozen=True, slots=True)
class RunningHttp:
    """A server that answers; `task` ends early only where the server died."""

    port: int
    task: asyncio.Task[None]
    server: uvicorn.Server

    async def stop(self) -> None:
        """Close the listener, give open requests five seconds, and return when all is gone."""
        self.server.should_exit = True
        await self.task


async def run_http(app: ASGIApp, listen: str) -> RunningHttp:
    """Serve `app` on `listen` (host:port; port 0 takes a free one) and return once it accepts connections.

    Raises OSError where the address cannot be bound.
    """
    listener = _bind(listen)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=_STOP_SECONDS
    )
    server = _SignalsLeftAlone(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    port: int = listener.getsockname()[1]
    while not server.started:
        if task.done():
            await task
            raise OSError(f"the HTTP server on {listen} ended while it started")
        await asyncio.sleep(0.005)
    return RunningHttp(port, task, server)


class _SignalsLeftAlone(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def _bind(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family)
