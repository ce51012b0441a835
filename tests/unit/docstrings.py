"""The public names, their docstrings, and the examples in these."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

__all__ = ["Documented", "documented", "run_examples", "shortcomings"]

_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL


class Documented:
    """A public name and what stands behind it."""

    def __init__(self, name: str, value: Any, *, needs_example: bool) -> None:
        self.name = name
        self.value = value
        self.needs_example = needs_example
        self.text = inspect.getdoc(value) or ""

    def __repr__(self) -> str:
        return self.name

    @property
    def function(self) -> Any:
        """The function behind it, if it is one or a method."""
        if isinstance(self.value, type | property):
            return None
        found = inspect.unwrap(getattr(self.value, "__func__", self.value))
        return found if inspect.isfunction(found) else None


def documented(module: ModuleType, *, deep: frozenset[str] = frozenset()) -> Iterator[Documented]:
    """Return each public name of a module and each public method of its classes.

    Arguments:
        module: its ``__all__`` counts.
        deep: the classes each method of which needs an example of its own.
    """
    for name in module.__all__:
        value = getattr(module, name)
        if not isinstance(value, type) and not inspect.isroutine(value):
            # An instance, such as the produce task: its comment is in the reference.
            continue
        yield Documented(name, value, needs_example=True)
        if isinstance(value, type):
            for method, found in _members(value):
                yield Documented(f"{name}.{method}", found, needs_example=name in deep)


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    seen = set()
    for base in kind.__mro__:
        if not base.__module__.startswith("celery_stargate"):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if isinstance(value, property):
                yield name, value
            elif isinstance(value, classmethod | staticmethod):
                yield name, value.__func__
            elif inspect.isfunction(value):
                yield name, value


def shortcomings(found: Documented) -> Iterator[str]:
    """Return what a docstring lacks."""
    text = found.text
    if not text:
        yield "it has no docstring"
        return
    if found.needs_example and ">>> " not in text:
        yield "it has no example"
    function = found.function
    if function is None:
        return
    arguments = _section(text, "Arguments|Args")
    for name, parameter in inspect.signature(function).parameters.items():
        hidden = name in {"self", "cls", "unknown"}
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if not hidden and not variable and not re.search(rf"\b{name}\b", arguments or text):
            yield f"it does not say what {name} is"
    returns = function.__annotations__.get("return")
    says = re.match(r"The |Whether|How |Where|A |An |It ", text) or re.search(r"\b[Rr]eturn", text)
    if returns not in (None, "None", "Self") and not says and _section(text, "Returns") is None:
        yield "it does not say what it returns"


def _section(text: str, name: str) -> str | None:
    found = re.search(rf"^(?:{name}):\n((?:[ ]+.*\n?|\n)*)", text, re.MULTILINE)
    return found[1] if found else None


def run_examples(found: Documented, names: Mapping[str, Any]) -> str:
    """Run a docstring's examples and return what went wrong, or an empty text."""
    test = doctest.DocTestParser().get_doctest(found.text, dict(names), found.name, None, 0)
    report: list[str] = []
    doctest.DocTestRunner(optionflags=_FLAGS).run(test, out=report.append)
    return "".join(report)
