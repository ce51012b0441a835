"""The benchmark's block in the README. No I/O."""

from __future__ import annotations

__all__ = ["BEGIN", "END", "replace_block"]

BEGIN = "<!-- benchmark:begin -->"
END = "<!-- benchmark:end -->"


def replace_block(text: str, block: str) -> str:
    """Return a text with what stands between its markers replaced.

    Raises:
        ValueError: the markers are not there, not once each, or in the wrong order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{BEGIN} and {END} must each stand once in the text")
    before, _, rest = text.partition(BEGIN)
    if END not in rest:
        raise ValueError(f"{END} stands before {BEGIN}")
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{block.strip()}\n{END}{after}"
