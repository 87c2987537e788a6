"""Who the audit says it was, where a relay carries out what earlier changes, or the clock, have left to do."""

from __future__ import annotations

from pemba.model import Caller

PRINCIPAL = "pemba:maintenance"


def as_maintenance(request_id: str = "") -> Caller:
    """The relay's maintenance as a caller, with the id of the call that left it to do, where there is one."""
    return Caller(PRINCIPAL, frozenset(), None, None, request_id, "relay")
