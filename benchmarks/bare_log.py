"""A bare log in Redis, as its callers see it: redis-py alone, and nothing of this package."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
from redis import Redis

from .app import Config
from .site import BenchmarkError, Site, Worker

__all__ = ["BareLog", "keys_of"]

#: How many entries one command puts, and how many bytes a pipeline has at most.
_PUT, _PUT_BYTES = 500, 1_000_000
#: How large a payload may be that a script puts: it looks at each byte of it.
_SMALL = 1024
#: How long one read of the inbox blocks, in ms; below redis-py's own timeout.
_BLOCK_MS = 3000

#: One that is put alone is marked: it is noted as sent, so that its owner need not do that.
_PUT_ONE = """
local id = redis.call('XADD', KEYS[1], '*', 'p', ARGV[3], 'n', ARGV[4], 'k', ARGV[1], 'g', ARGV[2],
  'm', '')
redis.call('HSET', KEYS[2], 'sent', id)
"""

_PUT_MANY = """
for i = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[1], '*', 'p', ARGV[i], 'n', ARGV[i + 1], 'k', ARGV[1], 'g', ARGV[2])
end
"""


def keys_of(config: Config, name: str) -> tuple[str, str, str]:
    """Return the keys of a log, of what is noted beside it, and of its caller's inbox."""
    log, meta, inbox = (f"{config.prefix}{name}:{what}" for what in ("log", "meta", "inbox"))
    return log, meta, inbox


class BareLog:
    """A log, and the inbox of its one caller.

    Arguments:
        name: of the log, and of the topic.
    """

    def __init__(self, config: Config, redis: Redis, name: str) -> None:
        self._redis: Any = redis
        self._log, self._meta, self._inbox = keys_of(config, name)
        self._put_one = redis.register_script(_PUT_ONE)
        self._put_many = redis.register_script(_PUT_MANY)
        self._last: Any = "0-0"

    def put(
        self, payloads: Sequence[str], kind: str, names: Sequence[str] = (), group: str = ""
    ) -> Sequence[str]:
        """Put messages, and return their names.

        Arguments:
            kind: what follows their receipts, as ``benchmarks.bare_owner`` tells.
            names: of the messages; by default new ones.
            group: of their chord.
        """
        names = names or [str(uuid.uuid4()) for _ in payloads]
        if len(payloads) == 1:
            keys = [self._log, self._meta]
            self._put_one(keys=keys, args=[kind, group, payloads[0], names[0]])
        elif len(payloads[0]) < _SMALL:
            for start in range(0, len(payloads), _PUT):
                some = slice(start, start + _PUT)
                pairs = zip(payloads[some], names[some], strict=True)
                args = [each for pair in pairs for each in pair]
                self._put_many(keys=[self._log], args=[kind, group, *args])
        else:
            size = max(1, _PUT_BYTES // len(payloads[0]))
            for start in range(0, len(payloads), size):
                with self._redis.pipeline(transaction=False) as pipe:
                    for place in range(start, min(start + size, len(payloads))):
                        given = {"p": payloads[place], "n": names[place], "k": kind, "g": group}
                        pipe.xadd(self._log, given)
                    pipe.execute()
        return names

    def empty(self) -> bool:
        """Whether all that was put is settled."""
        return not self._redis.xlen(self._log)

    def wait_settled(self, site: Site, owner: Worker) -> None:
        """Wait until all that was put is settled, as is waited for a lane."""
        site.wait_until(owner, self.empty)

    def skip_receipts(self) -> None:
        """Forget the receipts that the caller was told of before."""
        newest = self._redis.xrevrange(self._inbox, count=1)
        self._last = newest[0][0] if newest else "0-0"

    def receipts(self, count: int) -> int:
        """Wait until the caller is told of so many receipts, and return of how many it was told.

        Raises:
            BenchmarkError: none came for some seconds.
        """
        told = 0
        while told < count:
            found = self._redis.xread({self._inbox: self._last}, count=100, block=_BLOCK_MS)
            if not found:
                raise BenchmarkError(f"{told} of {count} messages have a receipt")
            [(_, entries)] = found
            self._last = entries[-1][0]
            told += sum(len(msgspec.json.decode(each[b"outcomes"])) for _, each in entries)
        return told
