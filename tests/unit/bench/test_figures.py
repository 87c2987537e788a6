"""From what was measured to what is shown."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

import pemba.spicedb.client
import pemba.v1.permissions_pb2  # noqa: F401  registers what is looked up
from pemba.bench.figures import Figures, Goal, Row, of_samples, percentile, ratio, refusals, spread, summary
from pemba.bench.ghz import descriptors, parse
from pemba.bench.mutations import parse_pgbench
from pemba.bench.report import COLUMNS, Report, as_json, markdown, table
from pemba.bench.run import QUICK

FAST = Figures(count=200, rate=100, p50=1, p95=2, p99=3, statuses={"OK": 200})
SLOW = Figures(count=40, rate=20, p50=10, p95=20, p99=30, statuses={"OK": 40})


def report(*rows: Row) -> Report:
    return Report(QUICK, rows, {"spicedb": "1.56.0"}, 4.0, 30.0)


def test_rounds_are_shown_by_their_median_and_compared_by_it():
    rounds = [FAST, SLOW, replace(FAST, rate=60)]

    assert summary(rounds).rate == 60
    assert summary(rounds).count == 440
    assert spread(rounds) == pytest.approx(80 / 60)
    assert ratio([FAST], [SLOW]) == 5
    assert ratio([FAST], [SLOW], "p99") == pytest.approx(0.1)
    assert ratio([FAST], [replace(SLOW, rate=0)]) == 0


def test_a_percentile_is_one_of_the_values():
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([5.0], 0.5) == 5
    assert percentile([], 0.5) == 0
    assert of_samples([1.0, 2.0, 3.0], 1.5) == Figures(count=3, rate=2, p50=2, p95=3, p99=3, statuses={"OK": 3})


def test_goals_have_a_direction():
    assert Goal("rate", 6, 6, at_least=True).is_met
    assert not Goal("rate", 5.9, 6, at_least=True).is_met
    assert Goal("p99 ms", 50, 50).is_met
    assert not Goal("p99 ms", 51, 50).is_met


def test_a_report_of_ghz_is_read_and_what_was_refused_does_not_count_as_throughput():
    said = {
        "count": 30,
        "total": 2_000_000_000,
        "rps": 15,
        "statusCodeDistribution": {"OK": 20, "Unavailable": 10},
        "latencyDistribution": [{"percentage": p, "latency": p * 100_000} for p in (10, 25, 50, 75, 90, 95, 99)],
    }
    figures = parse(json.dumps(said))

    assert (figures.rate, figures.p50, figures.p95, figures.p99) == (10, 5, 9.5, 9.9)
    assert refusals({"pemba": [figures]}) == ["pemba: Unavailable x 10"]
    assert refusals({"pemba": [FAST]}) == []


def test_a_load_that_nobody_answered_has_no_figures():
    figures = parse(json.dumps({"count": 0, "total": 0, "latencyDistribution": None, "statusCodeDistribution": None}))

    assert (figures.rate, figures.p99) == (0, 0)


def test_pgbench_is_read_with_its_log_of_transactions():
    figures = parse_pgbench("transaction type: x\ntps = 812.5 (without ...)\n", ["0 1 2500 0 1 2", "1 1 7500 0 1 3"])

    assert (figures.rate, figures.p50, figures.p99, figures.statuses) == (812.5, 2.5, 7.5, {"OK": 2})
    assert parse_pgbench("number of failed transactions: 3 (1%)\ntps = 1\n", []).refused == {"FAILED": 3}


@pytest.mark.parametrize("service", ["pemba.v1.PermissionService", "authzed.api.v1.PermissionsService"])
def test_a_descriptor_set_holds_all_that_a_service_takes(service: str):
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(descriptors(service)).file:
        pool.Add(file)

    assert pool.FindServiceByName(service).methods


ROW = Row(
    work="zipf",
    what="checks",
    sides={"pemba": [FAST], "spicedb": [SLOW], "spicedb, other": [SLOW]},
    goals=[Goal("rate / SpiceDB's", 5, 6, at_least=True), Goal("p99 / SpiceDB's", 0.1, 0.2)],
)


def test_a_row_has_a_line_for_each_goal_and_each_side_beside_pemba():
    first, second = table(report(ROW))

    assert list(first) == list(COLUMNS)
    assert first["PEMBA"] == "100/s, p50 1 p99 3 ms"
    assert first["BESIDE"].startswith("spicedb: 20/s")
    assert (first["RATIO"], first["GOAL"], first["MET"]) == ("5", "rate / SpiceDB's >= 6", "no")
    assert second["BESIDE"].startswith("spicedb, other")
    assert (second["WORK"], second["MET"]) == ("", "yes")


def test_what_spoils_a_row_is_shown_and_no_goal_of_it_is_met():
    spoilt = report(replace(ROW, problems=["spicedb: Unavailable x 3"]))
    lines = table(spoilt)

    assert spoilt.is_spoilt
    assert {line["MET"] for line in lines} == {"spoilt", ""}
    assert lines[-1]["BESIDE"] == "spicedb: Unavailable x 3"
    assert not any(goal["is_met"] for goal in as_json(spoilt)["rows"][0]["goals"])


def test_a_row_without_sides_and_one_without_goals_are_shown():
    bare = Row(work="memory", what="of serve", sides={}, goals=[Goal("MB", 100, 150)])

    assert len(table(report(bare, replace(ROW, goals=[])))) == 3


def test_json_holds_every_round_and_markdown_every_line():
    [row] = json.loads(json.dumps(as_json(report(ROW))))["rows"]

    assert row["sides"]["pemba"]["rounds"][0]["statuses"] == {"OK": 200}
    assert markdown(report(ROW)).count("\n| ") == 3
