"""Requests that nobody should send: any message, filled from its descriptor alone.

A message of nothing but noise is refused by the first look at its ids.  So most ids that a field asks for are real,
and the noise is in the others: that is how it comes as far as the rules and the statements.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

MAX_ITEMS = 1001
"""One more than any list takes."""
MAX_DEPTH = 4
_BYTES_OF_A_TEXT = 100_000

_ALPHABETS: tuple[str, ...] = (
    "abcdefghijklmnopqrstuvwxyz0123456789-",
    "".join(map(chr, range(32))) + "\x7f\x85\u2028",
    "äßπЖ字🙈\u0301\u202e\ufeff\u0000",
    "'\";\\%_=#/:@*\u2019$1{}[]()",
)
_WHOLE_TEXTS = (
    "", " ", "\x00", "0", "-1", "null", "~", "*", "..", "a/b/c", "user:alice", "group:x#member", "%00", "%", "\ud7ff",
    "ten_01h455vb4pex5vsknk084sn02q", "ws_01h455vb4pex5vsknk084sn02q", "TEN_01H455VB4PEX5VSKNK084SN02Q",
    "'; SELECT 1 --",
)  # fmt: skip
_NUMBERS = (0, 1, -1, 2, 999, 1000, 1001, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 2**64 - 1)

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class Hostile:
    """Makes messages; `known` are good values of text fields by the field's name."""

    def __init__(self, chance: random.Random, known: Mapping[str, Sequence[str]]) -> None:
        self._chance = chance
        self._known = known

    def message(self, descriptor: Descriptor, depth: int = 0) -> Any:
        """Any message of that type; each of its fields is set in half of the cases, those with known values always."""
        message: Message = GetMessageClass(descriptor)()
        for field in descriptor.fields:
            if field.message_type is not None and depth >= MAX_DEPTH:
                continue
            if field.name in self._known or self._chance.random() < 0.5:
                self._fill(message, field, depth)
        return message

    def _fill(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._fill_map(message, field, depth)
        elif field.is_repeated:
            getattr(message, field.name).extend(self._value(field, depth) for _ in range(self._length(field, depth)))
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(self._value(field, depth))
        else:
            setattr(message, field.name, self._value(field, depth))

    def _fill_map(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        value = field.message_type.fields_by_name["value"]
        entries = getattr(message, field.name)
        for _ in range(self._chance.randrange(3)):
            key = self._text("key")
            if value.message_type is not None:
                entries[key].CopyFrom(self._value(value, depth))
            else:
                entries[key] = self._value(value, depth)

    def _length(self, field: FieldDescriptor, depth: int) -> int:
        most = 3 if field.message_type is not None and depth else MAX_ITEMS
        return self._chance.choice((0, 0, 1, 1, 1, 2, 3, most))

    def _value(self, field: FieldDescriptor, depth: int) -> Any:
        if field.message_type is not None:
            return self.message(field.message_type, depth + 1)
        if field.enum_type is not None:
            defined = [value.number for value in field.enum_type.values]
            return self._chance.choice([*defined, *defined, *defined, 99, -1])
        makers: dict[int, Callable[[], Any]] = {
            FieldDescriptor.CPPTYPE_STRING: lambda: self._text_or_bytes(field),
            FieldDescriptor.CPPTYPE_BOOL: lambda: self._chance.random() < 0.5,
            FieldDescriptor.CPPTYPE_DOUBLE: lambda: self._chance.choice((0.0, -1.5, 1e308, float("inf"), float("nan"))),
            FieldDescriptor.CPPTYPE_FLOAT: lambda: self._chance.choice((0.0, -1.5, float("inf"), float("nan"))),
        }
        maker = makers.get(field.cpp_type)
        return maker() if maker else self._number(*_RANGES[field.cpp_type])

    def _number(self, least: int, most: int) -> int:
        return self._chance.choice([number for number in _NUMBERS if least <= number <= most])

    def _text_or_bytes(self, field: FieldDescriptor) -> str | bytes:
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._chance.randbytes(self._chance.choice((0, 1, 32, 1000)))
        return self._text(field.name)

    def _text(self, name: str) -> str:
        kind = self._chance.random()
        if name in self._known and kind < 0.9:
            return self._chance.choice(self._known[name])
        if kind < 0.5 or kind > 0.95:
            return self._chance.choice(_WHOLE_TEXTS)
        alphabet = self._chance.choice(_ALPHABETS)
        length = self._chance.choice((1, 3, 20, 64, 65, 129, 257, 2049))
        if self._chance.random() < 0.02:
            return alphabet[0] * _BYTES_OF_A_TEXT
        return "".join(self._chance.choices(alphabet, k=length))
