"""Calls that are made again where their failure may pass: an import is long, and a moment of it is not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc

from pemba.cli.failure import CallFailed

if TYPE_CHECKING:
    from pemba.cli.connection import Connection

TRIES = 6
_PASSES = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")
_FIRST_PAUSE_SECONDS = 0.25


def call(pemba: Connection, rpc: grpc.UnaryUnaryMultiCallable[Any, Any], request: Any) -> Any:
    """Call `rpc`, up to 6 times within some seconds; a request id makes a change of it one.  Raises CallFailed."""
    for attempt in range(TRIES - 1):
        try:
            return pemba.read(rpc, request)
        except CallFailed as error:
            if error.problem.code not in _PASSES and error.problem.reason != "CONCURRENT_UPDATE":
                raise
            time.sleep(error.problem.retry_seconds or _FIRST_PAUSE_SECONDS * 2**attempt)
    return pemba.read(rpc, request)
