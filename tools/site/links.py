"""Links of the site's pages: the pages are written for a reader of the repository.

A page links to files of the repository. In the site such a link leads to the page that is made
from that file, or to the file in the repository's browser, where its address is known.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["TOCTREE", "included", "rewrite", "toctree_entries", "unlisted"]

ROOT = Path(__file__).resolve().parent.parent.parent

#: A page of the site that is a file from elsewhere in the repository.
_INCLUDED = re.compile(r"\A<!-- page: (\S+) -->\s*\Z")
_LINK = re.compile(
    r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>(?!\w+:)[^)\s]+)\)"
)
_FENCE = re.compile(r"^(?P<fence>`{3,}).*?^(?P=fence)`*$", re.MULTILINE | re.DOTALL)
TOCTREE = re.compile(r"^`{3,}\{toctree\}\n(.*?)^`{3,}$", re.MULTILINE | re.DOTALL)


def included(text: str) -> str | None:
    """Return the path of the file that stands for a page, from the repository's root."""
    found = _INCLUDED.match(text)
    return found[1] if found else None


def pages(docs: Path = ROOT / "docs") -> dict[str, str]:
    """Return the site's page of each file, as paths from the repository's root and from docs/."""
    found = {"README.md": "index.md"}
    for page in sorted(docs.rglob("*.md")):
        name = page.relative_to(docs).as_posix()
        found[f"docs/{name}"] = name
        source = included(page.read_text("utf-8"))
        if source is not None:
            found[source] = name
    return found


def rewrite(text: str, path: str, known: dict[str, str], browser: str | None) -> str:
    """Make the links of a page lead to where the site has what they mean.

    Arguments:
        text: the page, in Markdown.
        path: its path from the repository's root.
        known: the site's pages, from :func:`pages`.
        browser: the address of the repository's files, with a slash at its end; None: unknown.
    """
    folder = posixpath.dirname(path)

    def changed(found: re.Match[str]) -> str:
        target, _, anchor = found["target"].partition("#")
        if not target or target.startswith("/"):
            return found[0]
        file = posixpath.normpath(posixpath.join(folder, target))
        if file in known:
            end = f"#{anchor}" if anchor else ""
            return f"{found['image']}[{found['text']}](/{known[file]}{end})"
        if file.startswith("docs/"):
            return f"{found['image']}[{found['text']}](/{file.removeprefix('docs/')})"
        if browser is not None:
            return f"[{found['text']}]({browser}{file})"
        return found["text"]

    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(changed, text[end : fence.start()]), fence[0]]
        end = fence.end()
    parts.append(_LINK.sub(changed, text[end:]))
    return "".join(parts)


def toctree_entries(text: str) -> Iterator[str]:
    """Return what the tables of contents of a page list, without titles and suffixes."""
    for found in TOCTREE.finditer(text):
        for line in found[1].splitlines():
            entry = line.strip()
            if not entry or entry.startswith(":"):
                continue
            title = re.fullmatch(r".*<(.+)>", entry)
            yield (title[1] if title else entry).removesuffix(".md")


def unlisted(docs: Path = ROOT / "docs") -> list[str]:
    """Return the pages below docs/ that no table of contents lists: readers cannot find them."""
    listed = {"index"}
    names = set()
    for page in docs.rglob("*.md"):
        name = page.relative_to(docs).with_suffix("").as_posix()
        names.add(name)
        for entry in toctree_entries(page.read_text("utf-8")):
            path = (
                entry if entry.startswith("/") else posixpath.join(posixpath.dirname(name), entry)
            )
            listed.add(posixpath.normpath(path).lstrip("/"))
    return sorted(names - listed)
