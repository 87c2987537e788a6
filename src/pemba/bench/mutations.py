"""Works that change roles: through the API, and the same SQL by pgbench."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pemba.bench.figures import Figures, Goal, Row, percentile, ratio, refusals
from pemba.bench.ghz import Ghz, Request, Target
from pemba.bench.loading import WRITERS, Loaded, delivered, sql_writer, writer
from pemba.dev.postgres import binary, psql
from pemba.dev.process import run
from pemba.dev.ready import Ready
from pemba.model import ObjectRef, Operation, SubjectRef, Tuple, TupleOperation
from pemba.projection import object_in_spicedb, subject_in_spicedb
from pemba.storage.outbox import shard_of, to_json

if TYPE_CHECKING:
    from pemba.bench.stage import Bench

CONCURRENCY = 16
_SCRIPT = Path(__file__).with_name("mutation.sql")
_TARGETS = """\
DROP TABLE IF EXISTS bench_target;
CREATE TABLE bench_target (
    n int PRIMARY KEY, tenant_id text, workspace_id text, user_id text, shard smallint, ops_member text, ops_viewer text
);
GRANT SELECT ON bench_target TO pemba_api;
COPY bench_target FROM STDIN;
{rows}
\\.
ANALYZE bench_target;
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Writer `writer` on a workspace; places are those of the data set."""

    tenant: int
    workspace: int
    writer: int


class Mutations:
    """SetRole calls, each of which changes something: a writer's role goes from viewer to member and back."""

    def __init__(self, loaded: Loaded, ready: Ready, ghz: Ghz, places: Sequence[Place]) -> None:
        self.places = places
        self._ghz = ghz
        self._target = Target(ready.grpc, ready.key, "pemba.v1.MembershipService/SetRole")
        both = ("ROLE_MEMBER", "ROLE_VIEWER")
        self._requests = [_set_role(loaded, each, role) for role in both for each in places]
        self._next = 0

    async def run(self, seconds: float, *, rate: int = 0) -> Figures:
        """At most `rate` a second, 0: as many as go at concurrency 16.  Goes on where the last run ended."""
        turned = self._requests[self._next :] + self._requests[: self._next]
        figures = await self._ghz.run(self._target, turned, seconds=seconds, concurrency=CONCURRENCY, rate=rate)
        self._next = (self._next + figures.count) % len(self._requests)
        return figures


@asynccontextmanager
async def going_on(mutations: Mutations, rate: int, seconds: float, figures: list[Figures]) -> AsyncIterator[None]:
    """Mutations go on meanwhile, for `seconds`; what they came to is added to `figures`."""
    running = asyncio.create_task(mutations.run(seconds, rate=rate))
    yield
    figures.append(await running)


def many_tenants(loaded: Loaded) -> list[Place]:
    """One tenant after the other, so that neighbours in the order do not wait for each other."""
    below_root = range(1, loaded.dataset.tenants[0].workspaces)
    return [Place(t, w, 0) for w in below_root for t in range(len(loaded.tenants))]


def one_tenant(loaded: Loaded) -> list[Place]:
    below_root = range(1, loaded.dataset.tenants[0].workspaces)
    return [Place(0, w, n) for n in range(1, WRITERS + 1) for w in below_root]


async def mutations(bench: Bench, ours: Mutations, name: str, bound: float) -> Row:
    """SetRole at concurrency 16, and pgbench at 16 clients, in turns."""
    figures: dict[str, list[Figures]] = {"pemba": [], "pgbench, the same SQL": []}
    pemba, pgbench = figures.values()
    psql(bench.ready.database_url, _TARGETS.format(rows=_rows(bench.loaded, ours.places)), log=bench.log("psql"))
    for number in range(bench.rounds):
        for side in (pemba, pgbench) if number % 2 == 0 else (pgbench, pemba):
            side.append(await (ours.run(bench.seconds) if side is pemba else _pgbench(bench, len(ours.places))))
            await delivered(bench.database)
    return Row(
        work=f"mutations-{name}",
        what=f"SetRole at concurrency 16 over {len({each.tenant for each in ours.places})} tenants, each a change",
        sides=figures,
        goals=[Goal("rate / pgbench's", ratio(pemba, pgbench), bound, at_least=True)],
        notes=["pgbench sends one round trip more than Pemba (BEGIN alone)"],
        problems=refusals(figures),
    )


def _set_role(loaded: Loaded, place: Place, role: str) -> Request:
    return {
        "tenant_id": loaded.tenants[place.tenant],
        "object": {"type": "workspace", "id": loaded.workspaces[place.tenant][place.workspace]},
        "subject": {"type": "user", "id": writer(place.writer)},
        "role": role,
    }


def _rows(loaded: Loaded, places: Sequence[Place]) -> str:
    """bench_target in COPY's text format."""
    lines = []
    for n, each in enumerate(places):
        tenant, workspace = loaded.tenants[each.tenant], loaded.workspaces[each.tenant][each.workspace]
        name = sql_writer(each.writer)
        place = object_in_spicedb(tenant, ObjectRef("workspace", workspace))
        user = subject_in_spicedb(tenant, SubjectRef("user", name))
        viewer, member = Tuple(place, "viewer", user), Tuple(place, "member", user)
        lines.append(
            "\t".join(
                [str(n), tenant, workspace, name, str(shard_of(tenant)), _turn(viewer, member), _turn(member, viewer)]
            )
        )
    return "\n".join(lines)


def _turn(old: Tuple, new: Tuple) -> str:
    return to_json([TupleOperation(Operation.DELETE, old), TupleOperation(Operation.TOUCH, new)])


async def _pgbench(bench: Bench, targets: int) -> Figures:
    """Times come from its log of every transaction."""
    seconds = max(1, round(bench.seconds))
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        command = [
            binary("pgbench"), "--no-vacuum", "--protocol=prepared", f"--client={CONCURRENCY}", "--jobs=2",
            f"--time={seconds}", f"--define=targets={targets}", f"--file={_SCRIPT}", "--log",
            "--log-prefix=transactions", bench.ready.database_url,
        ]  # fmt: skip
        log = Path(folder) / "output"
        environment = {**os.environ, "PGOPTIONS": "-c role=pemba_api"}
        await asyncio.to_thread(
            run, "pgbench", command, log=log, environment=environment, folder=Path(folder), seconds=seconds + 60
        )
        return _read_pgbench(Path(folder))


def _read_pgbench(folder: Path) -> Figures:
    transactions = [line for file in folder.glob("transactions*") for line in file.read_text().splitlines()]
    return parse_pgbench((folder / "output").read_text(), transactions)


def parse_pgbench(output: str, transactions: Sequence[str]) -> Figures:
    """`output` names the rate; the third field of a transaction's line is its time in microseconds."""
    found = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    times = [int(line.split()[2]) / 1000 for line in transactions]
    failed = re.search(r"^number of failed transactions: (\d+)", output, re.MULTILINE)
    refused = {"FAILED": int(failed[1])} if failed and int(failed[1]) else {}
    return Figures(
        count=len(times),
        rate=float(found[1]) if found else 0.0,
        p50=percentile(times, 0.5),
        p95=percentile(times, 0.95),
        p99=percentile(times, 0.99),
        statuses={"OK": len(times), **refused},
    )
