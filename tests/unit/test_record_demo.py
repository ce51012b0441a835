"""The recording of the demo."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from tools.record_demo import render

ROOT = Path(__file__).resolve().parents[2]


def test_each_line_appears_when_it_appeared() -> None:
    """Long pauses are cut; marks have colours; the text is escaped."""
    picture = render([(0.0, "  $ make demo"), (0.0, ""), (0.5, "  ✓ a <b> &"), (9.5, "  done")])
    root = ET.fromstring(picture)
    groups = root.findall("{http://www.w3.org/2000/svg}g")
    assert [each.attrib["style"] for each in groups] == [
        "animation-delay:0.80s",
        "animation-delay:1.30s",
        "animation-delay:2.30s",
    ]
    assert ["".join(each.itertext()) for each in groups] == [
        "  $ make demo",
        "  ✓ a <b> &",
        "  done",
    ]


def test_the_recording_of_the_readme_is_there() -> None:
    """It is well-formed, and its run lost nothing."""
    text = "".join(ET.parse(ROOT / "docs" / "demo.svg").getroot().itertext())
    assert "Nothing lost" in text
    assert "(docs/demo.svg)" in (ROOT / "README.md").read_text("utf-8")
