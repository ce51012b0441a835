"""``tools/check_commits.py``: which subjects are too long."""

from __future__ import annotations

from pathlib import Path

from tools.check_commits import main, subject_of, too_long


def test_72_characters_are_the_limit() -> None:
    """One more is told, with its length."""
    assert list(too_long(["a" * 72, "b" * 73])) == [f"73 characters, at most 72: {'b' * 73}"]


def test_the_subject_of_a_message_in_the_editor() -> None:
    """The first line that is neither empty nor a comment."""
    assert subject_of("# a comment\n\nAdd a thing\n\nWhy.\n") == "Add a thing"
    assert subject_of("# nothing else\n") == ""


def test_the_message_in_a_file(tmp_path: Path) -> None:
    """As git's hook hands it over."""
    message = tmp_path / "message"
    message.write_text("Add a thing\n\n" + "w" * 100)
    assert main([str(message)]) == 0
    message.write_text("w" * 73)
    assert main([str(message)]) == 1
