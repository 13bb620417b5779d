"""The page of the promises: each of them names tests, and these exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| \*\*(\d+)\. .*?\| (.*) \|$", re.MULTILINE)
NOT_YET = {18}
"""Promises about the scheduler."""


def _rows() -> dict[int, list[str]]:
    page = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
    return {int(number): re.findall(r"`(test_promise\w+)`", tests) for number, tests in ROW.findall(page)}


def test_each_promise_names_tests_that_carry_its_number() -> None:
    rows = _rows()

    assert set(rows) == set(range(1, 22)) - NOT_YET
    for number, tests in rows.items():
        assert tests, f"promise {number} names no test"
        for test in tests:
            head = re.match(r"test_promises?((?:_(?:and_)?\d+)+)", test)
            assert head, test
            assert number in map(int, re.findall(r"\d+", head[1])), f"{test} is not about promise {number}"


def test_each_named_test_exists() -> None:
    here = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))

    missing = [test for tests in _rows().values() for test in tests if f"def {test}(" not in here]

    assert missing == []
