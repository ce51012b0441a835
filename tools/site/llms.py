"""llms.txt: the site for programs that read text. One line a page, and the pages' own Markdown."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from tools.site.links import ROOT, included, toctree_entries

__all__ = ["index", "write_llms"]

_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def _text(docs: Path, name: str) -> str:
    text = (docs / f"{name}.md").read_text("utf-8")
    source = included(text)
    return text if source is None else (ROOT / source).read_text("utf-8")


def _described(text: str) -> tuple[str, str]:
    """Return a page's title, and the paragraph that says what it is for."""
    title = _TITLE.search(text)
    if title is None:
        return "", ""
    for paragraph in re.split(r"\n{2,}", text[title.end() :].strip()):
        if re.match(r"\w|\*\*|`(?!``)|\[", paragraph):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(paragraph.split()))
            return title[1], plain
    return title[1], ""


def _walk(docs: Path, name: str) -> Iterator[str]:
    """Return the pages that a page's tables of contents list, in order."""
    for entry in toctree_entries(_text(docs, name)):
        path = entry if entry.startswith("/") else posixpath.join(posixpath.dirname(name), entry)
        yield posixpath.normpath(path).lstrip("/")


def index(docs: Path) -> str:
    """Return llms.txt: title, purpose, and a list of pages for each section."""
    title, purpose = _described(_text(docs, "index"))
    lines = [f"# {title}", "", f"> {purpose}", ""]
    for section in _walk(docs, "index"):
        name, text = _described(_text(docs, section))
        inside = list(_walk(docs, section))
        if not inside:
            lines += [f"- [{name}]({section}.md): {text}", ""]
            continue
        lines += [f"## {name}", ""]
        for page in inside:
            name, text = _described(_text(docs, page))
            lines.append(f"- [{name}]({page}.md): {text}")
        lines.append("")
    return "\n".join(lines)


def write_llms(docs: Path, built: Path) -> None:
    """Write llms.txt, llms-full.txt and each page's Markdown beside the built pages."""
    (built / "llms.txt").write_text(index(docs), "utf-8")
    full = []
    for section in ["index", *_walk(docs, "index")]:
        for name in [section, *(_walk(docs, section) if section != "index" else ())]:
            text = _text(docs, name)
            target = built / f"{name}.md"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
            full.append(text)
    (built / "llms-full.txt").write_text("\n\n".join(full), "utf-8")
