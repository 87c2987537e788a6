"""Who the relay is where it changes something by itself."""

from __future__ import annotations

from pemba.model import Caller

PRINCIPAL = "pemba:relay"
"""Who the audit says it was."""


def as_relay(request_id: str) -> Caller:
    """The relay, in its own name."""
    return Caller(PRINCIPAL, frozenset(), None, None, request_id, "relay")
