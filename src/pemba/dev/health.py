"""The gRPC health question, as a start asks it."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 100)]


def is_serving(endpoint: str, seconds: float = 0.5) -> bool:
    """Whether the plaintext server at `endpoint` (host:port) answers SERVING within that time."""
    with grpc.insecure_channel(endpoint, options=_OPTIONS) as channel:
        try:
            check = health_pb2_grpc.HealthStub(channel).Check  # type: ignore[attr-defined]  # not in the stubs
            answer = check(health_pb2.HealthCheckRequest(), timeout=seconds, wait_for_ready=True)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
