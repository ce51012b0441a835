"""``tools/check_shape.py``: the bounds of modules and classes."""

from __future__ import annotations

from tools.check_shape import MAX_LINES, MAX_METHODS, find_faults


def make_class(methods: int, doc: str = "A class.", above: str = "") -> str:
    body = "".join(f"    def m{number}(self) -> None: ...\n" for number in range(methods))
    return f'{above}class Big:\n    """{doc}"""\n\n    def __init__(self) -> None: ...\n{body}'


def faults(source: str) -> list[str]:
    return list(find_faults("some.py", source))


def test_a_class_within_the_bound() -> None:
    """Special methods do not count."""
    assert faults(make_class(MAX_METHODS)) == []


def test_a_class_above_the_bound() -> None:
    """Is named, with what it has."""
    (fault,) = faults(make_class(MAX_METHODS + 1))
    assert fault.startswith(f"some.py: class Big has {MAX_METHODS + 1} methods")


def test_a_reason_in_the_docstring() -> None:
    """May be broken over lines."""
    assert faults(make_class(20, doc="It has more\n    methods than a class should: why.")) == []


def test_a_reason_in_a_comment_above() -> None:
    """Counts, too; another comment does not."""
    assert faults(make_class(20, above="# It has more methods than others: why.\n")) == []
    assert len(faults(make_class(20, above="# Something else.\n"))) == 1


def test_overloads_count_once() -> None:
    """However many forms a method has."""
    assert faults("class A:\n" + "    def m(self) -> None: ...\n" * 20) == []


def test_a_long_module() -> None:
    """One line more than it may have."""
    assert faults("pass\n" * MAX_LINES) == []
    assert "451 lines" in faults("pass\n" * (MAX_LINES + 1))[0]
