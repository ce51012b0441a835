"""The page of the commands has all of them, and says what each field means."""

from __future__ import annotations

import msgspec
import pytest

from celery_stargate.cli.main import stargate
from tools.commands_page import FORMS, PAGE, all_commands, fields_of, missing, written


def test_the_page_has_each_command_and_form() -> None:
    page = PAGE.read_text("utf-8")
    assert missing(page) == []
    assert set(missing("")) == {name for name, _ in all_commands(stargate, "")} | set(FORMS)


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.__name__)
def test_each_field_has_a_meaning(form: type[msgspec.Struct]) -> None:
    rows = list(fields_of(form))
    assert [name for name, _, _ in rows] == list(form.__struct_fields__)
    assert all(text for _, _, text in rows)


def test_fills_marks_and_leaves_the_rest() -> None:
    page = "before\n\n<!-- json: Rates -->\n| old |\n\nafter\n"
    filled = written(page)
    assert filled.startswith("before\n\n<!-- json: Rates -->\n| Field | Type | Meaning |\n")
    assert filled.endswith("|\n\nafter\n")
    assert "| old |" not in filled
    assert written(filled) == filled


@pytest.mark.parametrize(("name", "command"), list(all_commands(stargate, "")))
def test_each_command_has_examples_and_a_short_help(name: str, command: object) -> None:
    text = getattr(command, "help", "")
    assert f"celery -A shop stargate {name}" in text
    assert "Examples:" in text
