"""The outbox of an event loop: a step that fails tells those who wait for it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.loop_outbox import _Pipe
from celery_stargate.lanes.puts import AskedPut
from celery_stargate.lanes.record import Record
from celery_stargate.lanes.scripts import Callers


class Scripts:
    """Stands where the scripts of a loop do: each run answers with nonsense."""

    async def run(self, name: str, keys: Any, arguments: Any) -> Any:
        """Answer."""
        return [b"nonsense", 1]

    async def run_many(self, name: str, runs: Any) -> Any:
        """Answer each."""
        return [await self.run(name, *each) for each in runs]


@pytest.mark.parametrize("fresh", [False, True])
def test_an_answer_that_cannot_be_read(fresh: bool) -> None:
    """Is an error of the calls, and cancels none; the next call is sent as before."""
    lane = Lane("persistent://public/default/t")

    async def main() -> list[Any]:
        scripts: Any = Scripts()
        pipe = _Pipe(scripts, Callers(), "prefix", 2)
        asked = [
            AskedPut(lane, Record(each), [(each, b"{}")], timeout=5.0, fresh=fresh)
            for each in ("a", "b")
        ]
        found = await asyncio.gather(*map(pipe.put, asked), return_exceptions=True)
        return [*found, *await asyncio.gather(pipe.put(asked[0]), return_exceptions=True)]

    found = asyncio.run(asyncio.wait_for(main(), 10))
    assert [isinstance(each, ValueError) for each in found] == [True] * 3, found
