"""Check the built site: links, anchors, ids, the search index, llms.txt."""

from __future__ import annotations

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["Page", "problems", "search_words"]

#: Pages that Sphinx makes beside those of docs/.
_OF_SPHINX = {"genindex.html", "search.html", "py-modindex.html"}


class Page(HTMLParser):
    """What a built page has of interest: its ids, and what it links to and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        #: Scripts, styles and images.
        self.loaded: list[str] = []
        self.images_without_text = 0
        self.headings = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        found = dict(attrs)
        if found.get("id"):
            self.ids[str(found["id"])] += 1
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))
        if tag == "h1":
            self.headings += 1
        if tag in {"script", "img"} and found.get("src"):
            self.loaded.append(str(found["src"]))
        if tag == "link" and found.get("rel") == "stylesheet" and found.get("href"):
            self.loaded.append(str(found["href"]))
        if tag == "img" and not found.get("alt"):
            self.images_without_text += 1


def problems(built: Path) -> Iterator[str]:
    """Return all that is wrong with the site in a folder."""
    pages = {
        path.relative_to(built).as_posix(): Page(path.read_text("utf-8"))
        for path in sorted(built.rglob("*.html"))
        if "_static" not in path.parts
    }
    if "index.html" not in pages:
        yield f"{built} has no index.html"
        return
    for name, page in pages.items():
        for problem in _page_problems(built, name, page, pages):
            yield f"{name}: {problem}"
    yield from _search_problems(built, set(pages) - _OF_SPHINX)
    yield from _llms_problems(built)


def _page_problems(built: Path, name: str, page: Page, pages: dict[str, Page]) -> Iterator[str]:
    for loaded in page.loaded:
        if urlsplit(loaded).scheme or loaded.startswith("//"):
            yield f"loads {loaded} from elsewhere"
        elif not (built / _path(name, loaded)).is_file():
            yield f"loads {loaded}, which is missing"
    if page.images_without_text:
        yield f"{page.images_without_text} images have no alternative text"
    for link in sorted(set(page.links)):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = _path(name, link) if parts.path else name
        if target not in pages:
            if not (built / target).is_file():
                yield f"the link {link} leads nowhere"
        elif parts.fragment and unquote(parts.fragment) not in pages[target].ids:
            yield f"the link {link} finds no such heading"
    if name in _OF_SPHINX:
        return
    if page.headings != 1:
        yield f"has {page.headings} titles"
    for twice in (each for each, count in page.ids.items() if count > 1):
        yield f"the id {twice} is there twice"


def _path(name: str, link: str) -> str:
    path = unquote(urlsplit(link).path)
    found = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
    return posixpath.join(found, "index.html") if path.endswith("/") else found


def search_words(built: Path) -> dict[str, object]:
    """Return what the search index holds.

    Raises:
        ValueError: it is not a search index.
    """
    text = (built / "searchindex.js").read_text("utf-8")
    found = re.fullmatch(r"Search\.setIndex\((.*)\);?\s*", text, re.DOTALL)
    if found is None:
        raise ValueError("searchindex.js does not call Search.setIndex")
    index: dict[str, object] = json.loads(found[1])
    return index


def _search_problems(built: Path, names: set[str]) -> Iterator[str]:
    try:
        index = search_words(built)
    except (OSError, ValueError) as error:
        yield f"the search index cannot be read: {error}"
        return
    listed = index["docnames"]
    assert isinstance(listed, list)
    for name in sorted(names - {f"{each}.html" for each in listed}):
        yield f"{name} is not in the search index"
    words = index["terms"]
    assert isinstance(words, dict)
    for word in ("receipt", "lane", "stargate_url"):
        if word not in words:
            yield f"the search does not find {word!r}"


def _llms_problems(built: Path) -> Iterator[str]:
    path = built / "llms.txt"
    if not path.is_file():
        yield "llms.txt is missing"
        return
    text = path.read_text("utf-8")
    if not text.startswith("# ") or "\n> " not in text:
        yield "llms.txt has no title, or does not say what the project is for"
    for name, target, purpose in re.findall(r"^- \[([^\]]*)\]\((.*?)\):(.*)$", text, re.MULTILINE):
        if not (built / target).is_file():
            yield f"llms.txt: {target} is missing"
        if not name or not purpose.strip():
            yield f"llms.txt: {target} has no title, or does not say first what it is for"
