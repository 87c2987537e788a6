"""What a change would do, when it is only tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pemba.model import TupleOperation


@dataclass(frozen=True, slots=True)
class PreviewedRecord:
    """In JSON, as audit has them; None where there is none."""

    object_text: str
    before: object
    after: object


@dataclass(frozen=True, slots=True)
class Preview:
    """Filled in by a mutation that is rolled back, with what it did until then."""

    records: list[PreviewedRecord] = field(default_factory=list)
    operations: list[TupleOperation] = field(default_factory=list)

    def note(self, record: PreviewedRecord, operations: Sequence[TupleOperation] = ()) -> None:
        self.records.append(record)
        self.operations.extend(operations)
