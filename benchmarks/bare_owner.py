"""The owner of a bare log in Redis: ``python -m benchmarks.bare_owner NAME``.

It does what no owner of a lane can leave out, with redis-py, websockets and Celery alone: wait for
entries, note in Redis that they may be sent unless their put has done so, send them, and settle
them in one step with their results and what tells the caller. It has no deadlines, no leases, no
names of messages, and no care for failures, so what it takes is a floor of what a lane takes.

What follows an entry's receipt are the letters of its kind:

* ``t``: the caller is told
* ``r``: a result is stored, as Celery stores it
* ``l``: Celery's line is logged
* ``e``: Celery's three events are sent
* ``a``: a callback is published by Celery
* ``c``: Celery counts it for its chord
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import logging
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from celery.app import trace
from celery.app.task import Context
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from .app import CALLBACKS_QUEUE, CONFIG_VARIABLE, READY_VARIABLE, Config, make_plain_app
from .bare_log import keys_of
from .rivals.raw import connect

_IN_FLIGHT = 1000
#: How many entries, and bytes, one read takes, and how many entries one step settles.
_READ, _READ_BYTES, _SETTLE_MANY = 200, 1_000_000, 200
#: As an owner of a lane does: with so many in flight, one step waits so long for more receipts.
_COALESCE_ABOVE, _COALESCE_DELAY = 500, 0.005
#: How long nothing is read from Pulsar then.
_REST = 0.002
#: How long one read blocks, in ms.
_BLOCK_MS = 60_000
_EXPIRES = 86_400

#: KEYS: log, inbox, those of the rows. ARGV: the first entry that stays, what the caller is told,
#: seconds until a row expires, the rows.
_SETTLE = """
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
for i = 3, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i + 1], 'EX', ARGV[3])
  redis.call('PUBLISH', KEYS[i], ARGV[i + 1])
end
if ARGV[2] ~= '' then redis.call('XADD', KEYS[2], '*', 'outcomes', ARGV[2]) end
"""


@dataclass(slots=True)
class _Entry:
    """An entry of the log, and its receipt."""

    id: bytes
    kind: str
    #: Of the task, or of the message.
    name: str
    #: Of the chord.
    group: str
    receipt: dict[str, Any]


class _Reply(msgspec.Struct):
    result: str
    context: str
    messageId: str = ""  # noqa: N815  # Pulsar's name


class _Batched(ClientConnection):
    """The client of websockets; it writes many messages at once, and reads all that are there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._arrived: list[bytes] = []
        self._news = asyncio.Event()

    def process_event(self, event: Any) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
            self._arrived.append(bytes(event.data))
            self._news.set()
        else:
            super().process_event(event)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._news.set()

    async def receive_all(self) -> list[bytes]:
        """Wait for messages, and return all that are there."""
        while not self._arrived:
            if self.protocol.state is State.CLOSED:
                raise self.protocol.close_exc
            self._news.clear()
            await self._news.wait()
        arrived, self._arrived = self._arrived, []
        return arrived

    async def send_all(self, frames: list[bytes]) -> None:
        """Send messages in one write."""
        async with self.send_context():
            for frame in frames:
                self.protocol.send_text(frame)
            self.transport.write(b"".join(self.protocol.data_to_send()))

    def rest(self) -> None:
        """Read nothing for a moment, so that more messages are there then."""
        self.transport.pause_reading()
        self.loop.call_later(_REST, self.transport.resume_reading)


class _Owner:
    def __init__(self, config: Config, name: str, query: str) -> None:
        self._config, self._name, self._query = config, name, query
        self._log, self._meta, self._inbox = keys_of(config, name)
        self._redis = Redis.from_url(config.redis_url, socket_timeout=None)
        self._blocking = Redis.from_url(config.redis_url, socket_timeout=None)
        self._settle = self._redis.register_script(_SETTLE)
        self._effects = _Effects(config)
        self._thread = ThreadPoolExecutor(1)
        #: Tells that it is ready.
        self._ready = Path(os.environ[READY_VARIABLE])

    async def run(self) -> None:
        """Own the log until this process is ended; a connection that broke is opened again."""
        while True:
            try:
                async with connect(
                    *(self._config, self._name, self._query),
                    ping_interval=None,
                    create_connection=_Batched,
                ) as socket:
                    # Who is ready is stopped, and time goes on: it must be connected everywhere.
                    await asyncio.gather(self._redis.ping(), self._blocking.ping())
                    self._ready.touch()
                    await self._session(socket)
            except* ConnectionClosed:
                pass  # and what was in flight is sent again

    async def _session(self, socket: _Batched) -> None:
        self._socket = socket
        self._unanswered: deque[_Entry] = deque()
        self._answered: list[_Entry] = []
        self._room, self._given = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for work in (self._send, self._receive, self._settle_all):
                tasks.create_task(work())

    async def _send(self) -> None:
        last: bytes = b"0-0"
        count = _READ
        while True:
            found: Any = await self._blocking.xread({self._log: last}, count=count, block=_BLOCK_MS)
            if not found:
                continue
            [(_, entries)] = found
            last, bytes_ = entries[-1][0], 0
            if b"m" not in entries[-1][1]:
                await self._redis.hset(self._meta, "sent", last)
            frames: list[bytes] = []
            for id_, fields in entries:
                payload, name = fields[b"p"], fields[b"n"]
                self._unanswered.append(
                    _Entry(id_, fields[b"k"].decode(), name.decode(), fields[b"g"].decode(), {})
                )
                frames.append(
                    b'{"payload":"%b","context":"%b"}' % (base64.b64encode(payload), name)
                )
                bytes_ += len(payload)
            await self._socket.send_all(frames)
            while len(self._unanswered) > _IN_FLIGHT - _READ:
                self._room.clear()
                await self._room.wait()
            count = max(1, min(_READ, _READ_BYTES * len(entries) // max(1, bytes_)))

    async def _receive(self) -> None:
        decode = msgspec.json.Decoder(_Reply).decode
        topic = self._config.topic(self._name)
        while True:
            for frame in await self._socket.receive_all():
                reply = decode(frame)
                entry = self._unanswered.popleft()
                if reply.result != "ok" or reply.context != entry.name:
                    raise RuntimeError(f"Pulsar answered {reply} to {entry.name}")
                entry.receipt = {
                    "context": entry.name,
                    "topic": topic,
                    "status": "stored",
                    "message_id": reply.messageId,
                }
                self._answered.append(entry)
            self._room.set()
            self._given.set()
            if len(self._unanswered) >= _COALESCE_ABOVE:
                self._socket.rest()

    async def _settle_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._given.wait()
            self._given.clear()
            while self._answered:
                if len(self._answered) < _SETTLE_MANY and len(self._unanswered) >= _COALESCE_ABOVE:
                    await asyncio.sleep(_COALESCE_DELAY)
                batch = self._answered[:_SETTLE_MANY]
                del self._answered[:_SETTLE_MANY]
                if any(set(each.kind) - {"r", "t"} for each in batch):
                    await loop.run_in_executor(self._thread, self._effects.do, batch)
                await self._settle_some(batch)

    async def _settle_some(self, batch: list[_Entry]) -> None:
        rows = [each for each in batch if "r" in each.kind]
        told = [each.receipt for each in batch if "t" in each.kind]
        ms, _, number = batch[-1].id.decode().partition("-")
        await self._settle(
            keys=[self._log, self._inbox, *(self._effects.key(each.name) for each in rows)],
            args=[
                f"{ms}-{int(number) + 1}",
                msgspec.json.encode(told) if told else b"",
                _EXPIRES,
                *(self._effects.row(each) for each in rows),
            ],
        )


class _Effects:
    """What Celery does after a receipt."""

    def __init__(self, config: Config) -> None:
        self._app = make_plain_app(config)
        self._backend: Any = self._app.backend
        self._app.log.setup(loglevel=logging.INFO, colorize=False)
        self._callback = self._app.signature("bench.on_ack", queue=CALLBACKS_QUEUE)
        self._events: Any = self._app.events.Dispatcher(
            self._app.connection_for_write(), buffer_group=["task"]
        )

    def key(self, name: str) -> Any:
        return self._backend.get_key_for_task(name)

    def row(self, entry: _Entry) -> bytes:
        return msgspec.json.encode(
            {
                "status": "SUCCESS",
                "result": entry.receipt,
                "traceback": None,
                "children": [],
                "date_done": "2031-02-03T04:05:06.789012+00:00",
                "task_id": entry.name,
            }
        )

    def do(self, batch: list[_Entry]) -> None:
        """Do it for a batch."""
        callbacks = [each for each in batch if "a" in each.kind]
        if callbacks:
            with self._app.producer_or_acquire() as producer, producer.batch():
                for each in callbacks:
                    self._callback.apply_async(
                        (each.receipt,), producer=producer, argsrepr=repr((each.receipt,))
                    )
        for each in batch:
            if "c" in each.kind:
                chord = Context(id=each.name, group=each.group, chord=self._callback)
                self._backend.on_chord_part_return(chord, "SUCCESS", each.receipt)
            if "l" in each.kind:
                self._log(each)
            if "e" in each.kind:
                self._tell(each)
        self._events.flush()

    def _log(self, entry: _Entry) -> None:
        given = {"name": "bench", "id": entry.name, "runtime": 0.1, "args": "", "kwargs": ""}
        trace.info(trace.LOG_SUCCESS, {**given, "return_value": repr(entry.receipt)[:64]})

    def _tell(self, entry: _Entry) -> None:
        send, uuid = self._events.send, entry.name
        send("task-received", uuid=uuid, name="bench", args="", kwargs="", retries=0, eta=None)
        send("task-started", uuid=uuid)
        send("task-succeeded", uuid=uuid, result=repr(entry.receipt)[:256], runtime=0.1)


def main() -> None:
    """Own the log until this process is ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare_owner")
    parser.add_argument("name")
    parser.add_argument("--batched", action="store_true")
    options = parser.parse_args()
    query = "?batchingEnabled=true" if options.batched else ""
    config = Config.from_json(os.environ[CONFIG_VARIABLE])
    asyncio.run(_Owner(config, options.name, query).run())


if __name__ == "__main__":
    main()
