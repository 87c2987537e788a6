"""What is asked and answered, in SpiceDB's own ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pemba.errors import PembaError
from pemba.model import ObjectRef, SubjectRef


class Decision(StrEnum):
    """What a check answers; there is no other value, and a failure is none of them."""

    ALLOWED = "allowed"
    DENIED = "denied"
    CONDITIONAL = "conditional"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """At least as fresh as this ZedToken."""

    zedtoken: str


@dataclass(frozen=True, slots=True)
class FullyConsistent:
    """At SpiceDB's head."""


@dataclass(frozen=True, slots=True)
class MinimizeLatency:
    """At whatever revision is fastest: some seconds old."""


Freshness = AtLeast | FullyConsistent | MinimizeLatency


@dataclass(frozen=True, slots=True)
class CheckQuestion:
    """A question in SpiceDB's own ids."""

    resource: ObjectRef
    permission: str
    subject: SubjectRef
    context: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`checked_at` is the ZedToken of the revision that was asked."""

    decision: Decision
    missing_context: tuple[str, ...]
    checked_at: str


@dataclass(frozen=True, slots=True)
class BulkResult:
    """One result a question, in order."""

    results: list[CheckResult | PembaError]
    checked_at: str
