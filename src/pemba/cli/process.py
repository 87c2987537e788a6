"""`pemba serve` and `pemba relay`: the two servers."""

from __future__ import annotations

from pemba.cli.failure import reporting


def serve() -> None:
    """Serve the API: gRPC, and HTTP for health and metrics.  Settings: PEMBA_* (see docs/settings.md)."""
    with reporting():
        from pemba.app import run_serve
        from pemba.config import ServeSettings, load

        run_serve(load(ServeSettings))


def relay() -> None:
    """Deliver committed changes to SpiceDB; more of them share the work.  Settings: PEMBA_*."""
    with reporting():
        from pemba.app import run_relay
        from pemba.config import RelaySettings, load

        run_relay(load(RelaySettings))
