"""Every promise has its test."""

from __future__ import annotations

from pathlib import Path

from tests.e2e import rows


def test_every_row_has_a_test_and_every_test_a_row():
    promised = rows.rows(rows.PROMISES.read_text())
    assert len(promised) > 20
    assert not rows.complaints(promised, rows.tests(rows.FOLDER))


def test_a_row_without_a_test_and_a_test_without_a_row_are_told(tmp_path: Path):
    (tmp_path / "test_some.py").write_text("async def test_k1_holds():\n    pass\n\ndef test_z9_is_new():\n    pass\n")
    promised = rows.rows("| row | promise |\n|---|---|\n| K1 | One |\n| K22 | Two |\n")
    assert promised == {"K1": "One", "K22": "Two"}
    assert rows.complaints(promised, rows.tests(tmp_path)) == [
        "K22: no test is named test_k22_...",
        "test_some.py::test_z9_is_new: there is no row Z9",
    ]
