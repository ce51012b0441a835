"""``tools/run_tox.py``: what runs, and when the coverage of a run counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.run_tox import all_passed, groups, summary


def test_the_coverage_is_checked_after_the_tests() -> None:
    """By `make test`, of the run with all tests."""
    names = [each.name for each in groups("test")]
    assert names.index("full") < names.index("coverage")
    assert {each.name: each.reads for each in groups("test")}["coverage"] == "full"


@pytest.mark.parametrize(
    ("cases", "passed"),
    [
        ("<testcase/>", True),
        ('<testcase/><testcase><skipped type="pytest.xfail"/></testcase>', True),
        ('<testcase/><testcase><skipped message="no redis-server"/></testcase>', False),
        ("<testcase/><testcase><failure/></testcase>", False),
        ("<testcase/><testcase><error/></testcase>", False),
        ("", False),
    ],
)
def test_it_counts_if_every_test_passed(tmp_path: Path, cases: str, passed: bool) -> None:
    """What was skipped for want of a server reached nothing."""
    path = tmp_path / "full.xml"
    assert not all_passed(path)
    path.write_text(f"<testsuites><testsuite>{cases}</testsuite></testsuites>")
    assert all_passed(path) is passed


def test_what_did_not_run_is_shown() -> None:
    """Beside what passed and what failed."""
    text = summary([("full", 1, 60.0), ("coverage", None, 0.0), ("quick", 0, 9.0)])
    assert [line.split()[:2] for line in text.splitlines()[2:5]] == [
        ["full", "FAILED"],
        ["coverage", "not"],
        ["quick", "ok"],
    ]
