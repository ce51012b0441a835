"""The Lua scripts, read from their files."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["LANE_PARTS", "lane_script", "registry_script"]

#: The parts of a lane in the order of the scripts' KEYS; the caller's answers come last.
LANE_PARTS = (
    "log",
    "contexts",
    "deadlines",
    "outcomes",
    "due",
    "lease",
    "meta",
    "tombstones",
)


@cache
def lane_script(name: str) -> str:
    """Return a lane's script, with the common part before it."""
    return _text("lua/common.lua") + _text(f"lua/{name}.lua")


@cache
def registry_script(name: str) -> str:
    """Return a script of the registry of lanes and workers."""
    return _text(f"lua/registry/{name}.lua")


def _text(path: str) -> str:
    folder: Any = files(__package__)
    for part in path.split("/"):
        folder = folder / part
    return str(folder.read_text("utf-8"))
