"""Moments and spans of time, as options take them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SPAN = "(90s, 45m, 12h, 30d)"


def moment_of(text: str, option: str) -> datetime:
    """A time with its zone, or how long from now.  Raises BadParameter, naming `option`."""
    takes = f"{option} takes a time with its zone (2026-12-31T18:00Z), or how long from now {_SPAN}, not {text!r}"
    try:
        span = _span(text)
        time = datetime.fromisoformat(text) if span is None else datetime.now(UTC) + span
    except (ValueError, OverflowError):
        raise typer.BadParameter(takes) from None
    if time.tzinfo is None:
        raise typer.BadParameter(takes)
    return time


def span_of(text: str, option: str) -> timedelta:
    """How long.  Raises BadParameter, naming `option`."""
    span = _span(text)
    if span is None:
        raise typer.BadParameter(f"{option} takes how long {_SPAN}, not {text!r}")
    return span


def _span(text: str) -> timedelta | None:
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    return timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
