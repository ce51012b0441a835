"""The tools of the documentation site: links, diagrams, llms.txt and the check of built pages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.servers.fixtures import require
from tools.site import check
from tools.site.diagrams import DiagramError, dot, svg
from tools.site.links import included, pages, rewrite, toctree_entries, unlisted
from tools.site.llms import index

KNOWN = {"docs/redis.md": "redis.md", "CONTRIBUTING.md": "project/contributing.md"}
ROOT = Path(__file__).resolve().parents[2]


class TestLinks:
    @pytest.mark.parametrize(
        ("link", "expected"),
        [
            ("[a](redis.md)", "[a](/redis.md)"),
            ("[a](redis.md#options)", "[a](/redis.md#options)"),
            ("[a](../CONTRIBUTING.md#rules)", "[a](/project/contributing.md#rules)"),
            ("[a](#here)", "[a](#here)"),
            ("[a](https://example.org/x.md)", "[a](https://example.org/x.md)"),
            ("![a](benchmarks/lanes.svg)", "![a](/benchmarks/lanes.svg)"),
            ("[`a`](../tests/servers/__init__.py)", "[`a`](BROWSER/tests/servers/__init__.py)"),
        ],
    )
    def test_a_link_leads_to_the_page_of_the_site(self, link: str, expected: str) -> None:
        found = rewrite(f"See {link}.", "docs/settings.md", KNOWN, "BROWSER/")
        assert found == f"See {expected}."

    def test_a_file_that_is_no_page_is_named_where_no_browser_is_known(self) -> None:
        assert rewrite("[`x`](../a.py)", "docs/settings.md", KNOWN, None) == "`x`"

    def test_programs_are_left_alone(self) -> None:
        program = "```python\nnames[0](redis.md)\n```"
        assert rewrite(program, "docs/settings.md", KNOWN, None) == program

    def test_a_page_may_stand_for_a_file(self) -> None:
        assert included("<!-- page: CONTRIBUTING.md -->\n") == "CONTRIBUTING.md"
        assert included("# A page\n") is None

    def test_a_page_in_no_table_of_contents_is_found(self, tmp_path: Path) -> None:
        (tmp_path / "howto").mkdir()
        (tmp_path / "index.md").write_text("```{toctree}\nhowto/index\n```\n")
        (tmp_path / "howto" / "index.md").write_text(
            "```{toctree}\n:maxdepth: 1\n\nA title <../a>\n```\n"
        )
        for name in ("a", "b"):
            (tmp_path / f"{name}.md").write_text("# A\n")
        assert unlisted(tmp_path) == ["b"]

    def test_every_page_of_the_repository_is_listed(self) -> None:
        assert unlisted() == []
        assert list(toctree_entries((ROOT / "docs" / "index.md").read_text("utf-8")))

    def test_the_files_that_pages_stand_for_exist(self) -> None:
        missing = [each for each in pages() if not (ROOT / each).is_file()]
        assert missing == []


class TestDiagrams:
    def test_a_flowchart(self) -> None:
        drawn = dot('flowchart LR\n  a["one<br/>two"] -- "1 put" --> b[("Redis")] --> c')
        assert "rankdir=LR" in drawn
        assert 'a [label="one\\ntwo"; shape=box];' in drawn
        assert 'b [label="Redis"; shape=cylinder];' in drawn
        assert 'a -> b [label="1 put"];' in drawn
        assert 'b -> c [label=""];' in drawn

    def test_the_states_of_a_machine(self) -> None:
        drawn = dot("stateDiagram-v2\n  [*] --> A: put\n  A --> [*]")
        assert 'start -> A [label=" put "];' in drawn
        assert 'A -> end [label=""];' in drawn

    @pytest.mark.parametrize(
        "text", ["pie\n a", "flowchart LR\n a => b", "stateDiagram-v2\n A => B"]
    )
    def test_what_is_not_understood_is_an_error(self, text: str) -> None:
        with pytest.raises(DiagramError):
            dot(text)

    def test_every_diagram_of_the_pages_is_understood(self) -> None:
        found = 0
        for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
            for block in page.read_text("utf-8").split("```mermaid\n")[1:]:
                dot(block.split("```")[0])
                found += 1
        assert found

    def test_a_drawing_has_the_colours_of_the_page(self) -> None:
        if shutil.which("dot") is None:
            require("Graphviz is not installed; install it with: apt-get install graphviz")
        drawn = svg("flowchart LR\n a --> b")
        assert drawn.startswith("<svg")
        assert "currentColor" in drawn
        assert "var(--color-background-secondary)" in drawn
        assert " id=" not in drawn


def _built(folder: Path, body: str = "<h1>Title</h1>", search: str | None = None) -> list[str]:
    (folder / "index.html").write_text(body)
    (folder / "index.md").write_text("# Title\n")
    (folder / "llms.txt").write_text("# a\n\n> b\n\n- [Title](index.md): what for\n")
    words = {"receipt": 0, "lane": 0, "stargate_url": 0}
    found = {"docnames": ["index"], "terms": words}
    (folder / "searchindex.js").write_text(search or f"Search.setIndex({json.dumps(found)})")
    return list(check.problems(folder))


class TestBuilt:
    def test_a_good_site_has_no_problems(self, tmp_path: Path) -> None:
        assert (
            _built(tmp_path, '<h1 id="a">Title</h1><a href="#a">x</a><a href="index.md">y</a>')
            == []
        )

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            ('<h1>A</h1><a href="away.html">x</a>', "the link away.html leads nowhere"),
            ('<h1>A</h1><a href="#no">x</a>', "the link #no finds no such heading"),
            ('<h1>A</h1><p id="a"></p><p id="a"></p>', "the id a is there twice"),
            ('<h1>A</h1><script src="https://cdn.example/x.js"></script>', "from elsewhere"),
            ('<h1>A</h1><img src="index.html">', "no alternative text"),
            ("<p>A</p>", "has 0 titles"),
        ],
    )
    def test_what_is_wrong_is_told(self, tmp_path: Path, body: str, problem: str) -> None:
        [found] = _built(tmp_path, body)
        assert problem in found

    def test_a_search_index_that_is_none_is_told(self, tmp_path: Path) -> None:
        [found] = _built(tmp_path, search="nothing")
        assert "the search index cannot be read" in found

    def test_a_page_that_the_search_does_not_know_is_told(self, tmp_path: Path) -> None:
        found = _built(tmp_path, search='Search.setIndex({"docnames": [], "terms": {}})')
        assert "index.html is not in the search index" in found


def test_llms_txt_lists_each_page_with_what_it_is_for() -> None:
    text = index(ROOT / "docs")
    assert text.startswith("# celery_stargate\n\n> celery_stargate publishes messages")
    assert "- [Settings](settings.md): Read this page to look up a setting" in text
