"""The gate, without a SpiceDB."""

from __future__ import annotations

import traceback

import pytest

from pemba.errors import Unavailable
from pemba.spicedb.client import SpiceDB
from pemba.spicedb.schema_gate import SchemaGate


async def test_a_closed_gate_keeps_nothing_of_those_it_turned_away() -> None:
    client = SpiceDB.connect("127.0.0.1:1", "k")
    gate = SchemaGate(client)
    lengths = []
    for _ in range(3):
        with pytest.raises(Unavailable) as closed:
            gate.raise_if_not_ready()
        lengths.append(len(traceback.extract_tb(closed.value.__traceback__)))
    assert lengths[0] == lengths[2]
    await client.close()
