"""What a change would do, as a message."""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from pemba.model import Operation
from pemba.service.preview import Preview
from pemba.v1 import types_pb2

MAX_TUPLES = 1000


def preview(given: Preview) -> types_pb2.Preview:
    """All of its records, and of its tuples as many as an answer should hold."""
    listed = given.operations[:MAX_TUPLES]
    return types_pb2.Preview(
        records=[
            types_pb2.PreviewedRecord(object=each.object_text, before=_value(each.before), after=_value(each.after))
            for each in given.records
        ],
        tuples_added=[str(each.tuple) for each in listed if each.operation is Operation.TOUCH],
        tuples_removed=[str(each.tuple) for each in listed if each.operation is Operation.DELETE],
        tuples_omitted=len(given.operations) - len(listed),
    )


def _value(record: Any) -> Value:
    return ParseDict(record, Value())
