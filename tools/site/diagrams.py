"""Draw the pages' Mermaid diagrams as SVG, by Graphviz: no script runs in the reader's browser.

Two kinds of Mermaid are known, in the part of their grammar that the pages use: ``flowchart`` and
``stateDiagram-v2``. Anything else is an error.
"""

from __future__ import annotations

import html
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["DiagramError", "dot", "svg"]

#: Graphviz knows no CSS. These stand for the colours of the page's theme.
_INK, _FILL, _GROUP = "#010101", "#020202", "#030303"
_COLOURS = {
    _INK: "currentColor",
    _FILL: "var(--color-background-secondary)",
    _GROUP: "none",
}

_NODE = re.compile(
    r"(?P<id>\w+|\[\*\])(?:\[\(\"(?P<store>[^\"]*)\"\)\]|\[\"(?P<box>[^\"]*)\"\]|\[(?P<plain>[^\]\"(*]+)\])?"
)
_ARROW = re.compile(r'\s*(?:--\s*(?P<label>"[^"]*"|[^->"][^>]*?)\s*)?-->\s*')
_GROUP_LINE = re.compile(r'subgraph (?P<id>\w+)(?:\["(?P<label>[^"]*)"\])?')


class DiagramError(Exception):
    """A diagram has a line that is not understood."""


@dataclass
class _Graph:
    direction: str = "TB"
    nodes: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def svg(mermaid: str) -> str:
    """Return a diagram as an SVG element that has the colours of the page around it.

    Raises:
        DiagramError: a line is not understood, or Graphviz is not installed.
    """
    try:
        drawn = subprocess.run(
            ["dot", "-Tsvg"], input=dot(mermaid), capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        raise DiagramError("the command `dot` is missing: install Graphviz") from None
    except subprocess.CalledProcessError as error:
        raise DiagramError(error.stderr) from error
    drawn = drawn[drawn.index("<svg") :]
    for stand_in, colour in _COLOURS.items():
        drawn = drawn.replace(stand_in, colour)
    # The name of each node and edge would be shown as a tooltip; ids may occur once in a page.
    drawn = re.sub(r"<title>.*?</title>\n?", "", drawn)
    drawn = re.sub(r"<!--.*?-->\n?", "", drawn, flags=re.DOTALL)
    return re.sub(r' id="\w+"', "", drawn).strip()


def dot(mermaid: str) -> str:
    """Return a diagram in Graphviz's language."""
    lines = [line.strip() for line in mermaid.strip().splitlines() if line.strip()]
    kind, _, direction = lines[0].partition(" ")
    graph = _Graph()
    if kind == "flowchart":
        graph.direction = direction or "TB"
        _flowchart(lines[1:], graph)
    elif kind == "stateDiagram-v2":
        _states(lines[1:], graph)
    else:
        raise DiagramError(f"a diagram of the kind {kind!r} is not known")
    return "\n".join(_document(graph))


def _document(graph: _Graph) -> Iterator[str]:
    yield "digraph {"
    yield f'rankdir={graph.direction}; bgcolor="transparent"; nodesep=0.3; ranksep=0.45; pad=0.1;'
    text = f'fontname="Arial"; fontsize=12; fontcolor="{_INK}"; color="{_INK}";'
    yield f"graph [{text}];"
    yield f'node [{text} shape=box; style="rounded,filled"; fillcolor="{_FILL}"; height=0.4];'
    yield f"edge [{text} fontsize=11; arrowsize=0.7];"
    yield from graph.lines
    yield "}"


def _quote(text: str) -> str:
    text = re.sub(r"<br ?/?>", "\n", html.unescape(text))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _flowchart(lines: list[str], graph: _Graph) -> None:
    for line in lines:
        group = _GROUP_LINE.fullmatch(line)
        if group:
            graph.lines.append(f"subgraph cluster_{group['id']} {{")
            graph.lines.append(f"label={_quote(group['label'] or group['id'])}; style=dashed;")
        elif line == "end":
            graph.lines.append("}")
        else:
            _chain(line, graph)


def _chain(line: str, graph: _Graph) -> None:
    """Read ``A["text"] -- label --> B --> C``."""
    at, before, label = 0, None, ""
    while at < len(line):
        node = _NODE.match(line, at)
        if node is None:
            raise DiagramError(f"not understood: {line!r}")
        name, at = node["id"], node.end()
        shown = node["store"] or node["box"] or node["plain"]
        if shown:
            shape = "cylinder" if node["store"] else "box"
            graph.lines.append(f"{name} [label={_quote(shown)}; shape={shape}];")
        elif before is None:
            graph.lines.append(f"{name};")
        if before is not None:
            graph.lines.append(f"{before} -> {name} [label={_quote(label)}];")
        if at == len(line):
            return
        arrow = _ARROW.match(line, at)
        if arrow is None:
            raise DiagramError(f"not understood: {line!r}")
        before, at = name, arrow.end()
        label = (arrow["label"] or "").strip('"')


def _states(lines: list[str], graph: _Graph) -> None:
    """Read ``A --> B: event``; ``[*]`` is the beginning on the left and the end on the right."""
    for name in ("start", "end"):
        if any(line.startswith("[*]") if name == "start" else "> [*]" in line for line in lines):
            shape = "circle" if name == "start" else "doublecircle"
            graph.lines.append(
                f'{name} [label=""; shape={shape}; width=0.14; height=0.14; fillcolor="{_INK}"];'
            )
    for line in lines:
        found = re.fullmatch(r"(\[\*\]|\w+) --> (\[\*\]|\w+)(?:: (.*))?", line)
        if found is None:
            raise DiagramError(f"not understood: {line!r}")
        before = "start" if found[1] == "[*]" else found[1]
        after = "end" if found[2] == "[*]" else found[2]
        label = f" {found[3]} " if found[3] else ""
        graph.lines.append(f"{before} -> {after} [label={_quote(label)}];")
