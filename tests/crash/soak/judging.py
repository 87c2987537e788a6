"""What must be true of a soak: each answer is explained by a state that is no older than its token.

The state of a tenant after each number of its sequence follows from audit, as does each user's status after each number
of the stream `~`.  An answer is explained if it is that of some number between the one that its token names (without a
token: the one that was delivered when the server last had to know) and the last one that can have been committed when
the answer came.  What a user may do is worked out here anew, by walking up the tree.
"""

from __future__ import annotations

import json
import uuid
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pemba.model import GLOBAL_STREAM, ObjectRef, SubjectRef, TenantId, Tuple
from pemba.tokens import Signer
from tests.crash.faults.checker import Timeline
from tests.crash.faults.recording import rows_of
from tests.crash.soak.callers import Acknowledged, Told
from tests.crash.soak.faults import Emptied
from tests.stack import ROOT_SECRET
from tests.truth import sql

RANKS = {"viewer": 1, "member": 2, "admin": 3, "owner": 4}
NEEDED = {"view": 1, "edit": 2, "administer": 3, "own": 4}


class TenantHistory:
    """One tenant after each number of its sequence."""

    def __init__(self, tenant_id: str, timeline: Timeline, delivered: Sequence[tuple[float, int]]) -> None:
        """`delivered` are times (Unix seconds, ascending) and the numbers that were recorded as delivered at them."""
        self.timeline = timeline
        self._id = tenant_id
        self._delivered_at = [at for at, _ in delivered]
        self._delivered = [seq for _, seq in delivered]
        self._upwards: dict[str, list[Tuple]] = defaultdict(list)
        for each in timeline.tuples():
            if each.relation in ("parent", "tenant"):
                self._upwards[each.resource.id].append(each)

    def delivered_at(self, time: float) -> int:
        at = bisect_right(self._delivered_at, time)
        return self._delivered[at - 1] if at else 0

    def may(self, user: str, permission: str, workspace_id: str, seq: int) -> bool:
        """By the tuples alone."""
        return self._rank(user, f"{self._id}/{workspace_id}", seq) >= NEEDED[permission]

    def _rank(self, user: str, workspace: str, seq: int) -> int:
        subject, at = SubjectRef("user", user), ObjectRef("workspace", workspace)
        held = [rank for role, rank in RANKS.items() if self.timeline.is_there(Tuple(at, role, subject), seq)]
        above = [each for each in self._upwards[workspace] if self.timeline.is_there(each, seq)]
        return max([*held, *(self._rank_above(user, each, seq) for each in above)], default=0)

    def _rank_above(self, user: str, above: Tuple, seq: int) -> int:
        if above.relation == "parent":
            return self._rank(user, above.subject.id, seq)
        tenant = ObjectRef("tenant", above.subject.id)
        return 4 * self.timeline.is_there(Tuple(tenant, "admin", SubjectRef("user", user)), seq)


class Statuses:
    """Who is active after each number of the stream `~`."""

    def __init__(self, changes: Mapping[str, Sequence[tuple[int, bool]]], begun: Sequence[float]) -> None:
        """`changes` are by user, with the number from which on each holds; `begun` as of `Timeline`."""
        self._changes = changes
        self._begun = begun

    def head_at(self, time: float) -> int:
        return bisect_right(self._begun, time)

    def between(self, user: str, low: int, high: int) -> set[bool]:
        """Whether active, after any of these numbers."""
        found, now = set(), True
        for seq, active in self._changes.get(user, ()):
            if seq > high:
                break
            if seq > low:
                found.add(now)
            now = active
        return found | {now}


@dataclass(frozen=True)
class History:
    """All of it."""

    tenants: Mapping[str, TenantHistory]
    statuses: Statuses
    signer: Signer
    knows_for: float
    """So many seconds old may be what a server without PostgreSQL answers from."""

    def is_explained(self, told: Told) -> bool:
        history, token = self.tenants[told.tenant_id], self._positions(told.token)
        low = token.get(told.tenant_id, history.delivered_at(told.began - self.knows_for))
        high = history.timeline.head_at(told.ended)
        low_status = token.get(GLOBAL_STREAM, self.statuses.head_at(told.began - self.knows_for))
        active = self.statuses.between(told.user, low_status, self.statuses.head_at(told.ended))
        if not told.allowed and False in active:
            return True
        if told.allowed and True not in active:
            return False
        return any(
            history.may(told.user, told.permission, told.workspace_id, seq) is told.allowed
            for seq in range(high, low - 1, -1)
        )

    def _positions(self, token: str) -> Mapping[str, int]:
        return self.signer.positions(token).positions if token else {}


async def history_of(url: str, knows_for: float) -> History:
    """Read back from PostgreSQL."""
    rows, delivered = defaultdict(list), defaultdict(list)
    for row in await rows_of(url):
        rows[row.tenant_id].append(row)
    for r in await sql(
        url, "SELECT extract(epoch FROM at) AS at, tenant_id, delivered_seq FROM delivery_log ORDER BY at"
    ):
        delivered[r["tenant_id"]].append((float(r["at"]), r["delivered_seq"]))
    tenants = {id_: TenantHistory(id_, Timeline(rows[id_]), delivered[id_]) for id_ in rows}
    [installed] = await sql(url, "SELECT database_epoch FROM installation")
    signer = Signer((ROOT_SECRET,), uuid.UUID(str(installed["database_epoch"])))
    return History(tenants, await _statuses_of(url), signer, knows_for)


async def _statuses_of(url: str) -> Statuses:
    records = await sql(
        url,
        "SELECT seq, object, after, extract(epoch FROM create_time) AS begun FROM audit"
        " WHERE tenant_id = $1 AND seq IS NOT NULL ORDER BY seq",
        GLOBAL_STREAM,
    )
    changes: dict[str, list[tuple[int, bool]]] = defaultdict(list)
    begun = [float("-inf")] * (records[-1]["seq"] if records else 0)
    for r in records:
        begun[r["seq"] - 1] = float(r["begun"])
        type_, _, id_ = r["object"].partition(":")
        if type_ == "user" and r["after"]:
            changes[id_].append((r["seq"], json.loads(r["after"])["status"] == "active"))
    for i in range(len(begun) - 2, -1, -1):
        begun[i] = min(begun[i], begun[i + 1])
    return Statuses(changes, begun)


def unexplained(history: History, told: Sequence[Told]) -> Iterator[Told]:
    """Answers that are those of no state they may be of."""
    return (each for each in told if not history.is_explained(each))


def is_of_an_emptied_store(told: Told, emptied: Sequence[Emptied], knows_for: float) -> bool:
    """A denial between the loss and the moment at which every server must have heard of it: it grants nothing."""
    return not told.allowed and any(e.began <= told.ended and told.began <= e.declared + knows_for for e in emptied)


async def lost(url: str, history: History, acknowledged: Sequence[Acknowledged]) -> list[Acknowledged]:
    """Changes that a caller was told of, and of which the database does not have the same."""
    remembered = {
        (r["method"], r["request_id"]): r["token"]
        for r in await sql(url, "SELECT method, request_id, token FROM idempotency")
    }
    numbered = {
        (r["tenant_id"], r["seq"]): r["method"]
        for r in await sql(url, "SELECT tenant_id, seq, method FROM audit WHERE seq IS NOT NULL")
    }

    def is_there(change: Acknowledged) -> bool:
        if remembered.get((change.method, change.request_id)) != change.token:
            return False
        positions = history._positions(change.token)
        return all(numbered.get((TenantId(t), seq)) == change.method for t, seq in positions.items())

    return [change for change in acknowledged if not is_there(change)]
