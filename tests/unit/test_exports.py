"""The public names: fixed, so a change of them is a change of this file."""

from __future__ import annotations

import ast
from pathlib import Path

import celery_stargate

PUBLIC = {
    "Acknowledger",
    "ConfigurationError",
    "ContextInUse",
    "Failure",
    "InvalidMessage",
    "LaneFull",
    "Message",
    "ProduceError",
    "ProduceTask",
    "ProduceTimeout",
    "Receipt",
    "Stargate",
    "StargateError",
    "StoreUnavailable",
    "produce",
    "produce_task",
}


def test_the_public_names_are_these() -> None:
    """Nothing becomes public by accident, and nothing public goes away."""
    assert set(celery_stargate.__all__) == PUBLIC
    assert len(celery_stargate.__all__) == len(PUBLIC)


def test_each_public_name_is_there() -> None:
    """`__all__` names nothing that an import would miss."""
    for name in PUBLIC:
        assert getattr(celery_stargate, name).__module__.startswith("celery_stargate"), name


def test_every_error_is_a_stargate_error() -> None:
    """One `except StargateError` holds everything that the package raises on purpose."""
    errors = [
        value
        for value in vars(celery_stargate).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    ]
    assert len(errors) == 8
    assert all(issubclass(each, celery_stargate.StargateError) for each in errors)


def test_init_holds_imports_and_all_only() -> None:
    """`__init__.py` is the contract and nothing else: no code hides there."""
    tree = ast.parse(Path(celery_stargate.__file__).read_text("utf-8"))
    for node in tree.body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        assert is_docstring or is_all or isinstance(node, ast.ImportFrom), ast.unparse(node)
