"""Each check of `doctor` has a test that plants its mistake where a real one would be."""

from __future__ import annotations

from tools.doctor_checks import checks, planted


def test_each_check_has_a_planted_mistake() -> None:
    """A new check fails here until a test in tests/integration/operations/doctor plants one."""
    assert set(planted()) == set(checks())
    assert len(checks()) >= 40


def test_the_findings_without_a_table_are_seen() -> None:
    assert {"settings", "redis-connection", "pulsar-settings", "topics"} <= set(checks())
