"""What the site adds to Sphinx: links of the repository, diagrams, and llms.txt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from tools.site.diagrams import DiagramError, svg
from tools.site.links import ROOT, included, pages, rewrite
from tools.site.llms import write_llms

__all__ = ["setup"]


class Mermaid(Directive):  # type: ignore[misc]  # docutils ships no types
    """A diagram in Mermaid's language, drawn when the site is built."""

    has_content: ClassVar[bool] = True

    def run(self) -> list[nodes.Node]:
        """Return the diagram as HTML."""
        try:
            drawn = svg("\n".join(self.content))
        except DiagramError as error:
            raise self.error(f"the diagram cannot be drawn: {error}") from error
        source = "\n".join(self.content).replace("&", "&amp;").replace("<", "&lt;")
        return [
            nodes.raw(
                "",
                f'<figure class="diagram" role="img">{drawn}</figure>\n'
                f'<details class="diagram-text"><summary>The diagram as text</summary>'
                f"<pre>{source}</pre></details>",
                format="html",
            )
        ]


def browser() -> str | None:
    """Return the address of the repository's files, if a workflow of GitHub builds the site."""
    repository = os.environ.get("GITHUB_REPOSITORY")
    if not repository:
        return None
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    return f"{server}/{repository}/blob/{os.environ.get('GITHUB_SHA', 'main')}/"


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    path = f"docs/{docname}.md"
    source = included(content[0])
    if source is not None:
        path = source
        content[0] = (ROOT / source).read_text("utf-8")
        app.env.note_dependency(str(ROOT / source))
    content[0] = rewrite(content[0], path, pages(), browser())


def _finished(app: Sphinx, exception: Exception | None) -> None:
    if exception is None:
        write_llms(Path(app.srcdir), Path(app.outdir))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register it with Sphinx."""
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", _read)
    app.connect("build-finished", _finished)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
