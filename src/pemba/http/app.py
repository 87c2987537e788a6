"""GET /livez, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

Readiness = Callable[[], list[str]]
"""What keeps this process from serving, each a line for a person; empty when it is ready.  Must not block."""


def build_http(readiness: Readiness) -> Starlette:
    """The app: /livez is 200 while the event loop turns, /readyz 200 or 503 with `readiness`'s reasons."""

    async def readyz(_: Request) -> Response:
        reasons = readiness()
        body = {"ready": not reasons, "reasons": reasons}
        return JSONResponse(body, status_code=503 if reasons else 200)

    return Starlette(routes=[_get("/livez", _livez), _get("/readyz", readyz), _get("/metrics", _metrics)])


def _get(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, endpoint, methods=["GET"])


async def _livez(_: Request) -> Response:
    return PlainTextResponse("ok\n")


async def _metrics(_: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
