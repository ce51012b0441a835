"""Blocks between markers, in the README and in docs/performance.md. No I/O."""

from __future__ import annotations

__all__ = ["BEGIN", "END", "NOT_MEASURED", "block_of", "markers", "replace_block"]

BEGIN = "<!-- benchmark:begin -->"
END = "<!-- benchmark:end -->"
#: What stands there before the first run.
NOT_MEASURED = "Not measured yet: `make bench` writes this part."


def markers(name: str) -> tuple[str, str]:
    """Return what stands before and after a block; the README's has no name."""
    return (f"<!-- {name}:begin -->", f"<!-- {name}:end -->") if name else (BEGIN, END)


def replace_block(text: str, block: str, name: str = "") -> str:
    """Return a text with what stands between its markers replaced.

    Raises:
        ValueError: the markers are not there, not once each, or in the wrong order.
    """
    begin, end = markers(name)
    before, after = _around(text, begin, end)
    return f"{before}{begin}\n{block.strip()}\n{end}{after}"


def block_of(text: str, name: str = "") -> str:
    """Return what stands between the markers.

    Raises:
        ValueError: as :func:`replace_block`.
    """
    begin, end = markers(name)
    before, after = _around(text, begin, end)
    return text[len(before) + len(begin) : len(text) - len(after) - len(end)].strip()


def _around(text: str, begin: str, end: str) -> tuple[str, str]:
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{begin} and {end} must each stand once in the text")
    before, _, rest = text.partition(begin)
    if end not in rest:
        raise ValueError(f"{end} stands before {begin}")
    return before, rest.partition(end)[2]
