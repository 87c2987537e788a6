"""What is asked and what is answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pemba.errors import PembaError, Reason
from pemba.model import ObjectRef, SubjectRef
from pemba.spicedb.client import Decision


@dataclass(frozen=True, slots=True)
class Question:
    """May `subject` do `permission` on `resource`?  Ids are callers'; `context` is for caveats."""

    resource: ObjectRef
    permission: str
    subject: SubjectRef
    context: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Consistency:
    """At most one of the three; none: at least as fresh as the tenant's last delivered state."""

    at_least_as_fresh: str = ""
    fully_consistent: bool = False
    minimize_latency: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """`reason` says why nothing was asked (TENANT_SUSPENDED, USER_SUSPENDED); `token` names the position."""

    decision: Decision
    reason: Reason | None
    missing_context: tuple[str, ...]
    token: str


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """One result an item, in order; `token` is empty where the batch spans more tenants than a token can name."""

    results: tuple[Answer | PembaError, ...]
    token: str


@dataclass(frozen=True, slots=True)
class AllAnswer:
    """The decision on every permission asked about, in order; `reason` and `token` as in Answer."""

    answers: Mapping[str, Answer]
    reason: Reason | None
    token: str
