"""What the acceptance tests are made with: an app, worker processes, a reader of topics."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from celery import Celery
from websockets.sync.client import connect

from celery_stargate import ProduceTask, Stargate
from celery_stargate.lanes.lane import Lane
from celery_stargate.lanes.registry import RegistryKeys
from tests.acceptance.tasks import CONF, LOG_URL, READY, SIGNALS, make_app
from tests.alone import forget, own_names
from tests.servers.admin import PulsarAdmin, topic_path
from tests.servers.process import ServerProcess

__all__ = ["HERE", "WAIT", "Installation", "Rig", "Worker", "eventually", "text"]

#: The bound on a wait for what should take a moment, in seconds.
WAIT = 30.0
#: The lease in these tests, in seconds: short, because several wait for one to pass.
LEASE = 2.0

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Installation:
    """Where a process takes the package from.

    Args:
        python: the interpreter.
        folder: where the process runs; it has the `tests` that it imports.
    """

    python: str
    folder: Path


#: The package that is tested.
HERE = Installation(sys.executable, _ROOT)


def eventually(condition: Callable[[], Any], timeout: float = WAIT, every: float = 0.02) -> Any:
    """Ask until the answer is true, and return it; the last answer when the time is over."""
    end = time.monotonic() + timeout
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(every)
    return found


def text(message: dict[str, Any]) -> str:
    """The payload of a message that the reader got."""
    return base64.b64decode(message["payload"], validate=True).decode()


class Worker:
    """A worker: `python -m celery -A tests.acceptance.app worker`, in a session of its own.

    Args:
        module: another one with an app of that kind.
        installation: where it takes the package from.
    """

    def __init__(
        self,
        rig: Rig,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        args: Sequence[str] = (),
        conf: dict[str, Any] | None = None,
        count_signals: bool = False,
        env: dict[str, str] | None = None,
        module: str = "tests.acceptance.app",
        installation: Installation = HERE,
    ) -> None:
        self.installation = installation
        name = uuid.uuid4().hex[:8]
        self.hostname = f"w-{name}@stargate"
        self._rig = rig
        self._ready_key = rig.key()
        self.signals_key = rig.key()
        env = {
            **os.environ,
            **(env or {}),
            "PYTHONPATH": str(installation.folder),
            "PYTHONUNBUFFERED": "1",
            CONF: json.dumps({**rig.conf, **(conf or {})}),
            LOG_URL: rig.redis_url,
            READY: self._ready_key,
        }
        if count_signals:
            env[SIGNALS] = self.signals_key
        self.command = [
            *(installation.python, "-m", "celery", "-A", module, "worker"),
            *("--pool", pool, "--concurrency", str(concurrency), "-n", self.hostname),
            *("--without-mingle", "--without-gossip", "--loglevel", "INFO"),
            *args,
        ]
        self.env = env
        self.log_path = rig.folder / f"worker-{name}.log"
        self._process = ServerProcess(
            f"worker {name}",
            self.command,
            log_path=self.log_path,
            env=env,
            cwd=installation.folder,
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            print(f"{self.hostname}:\n{self.log()[-6000:]}")
        self.stop()

    def start(self) -> Self:
        """Start it, and return when it says that it is ready."""
        self._process.start(lambda: bool(self._rig.log.lpop(self._ready_key)), timeout=45)
        return self

    @property
    def pid(self) -> int:
        """The process id of its main process, and of its group."""
        pid = self._process.pid
        assert pid is not None, self.log()
        return pid

    @property
    def alive(self) -> bool:
        return self._process.alive

    def terminate(self) -> None:
        """Ask for a warm shutdown (SIGTERM to its main process), and do not wait."""
        os.kill(self.pid, signal.SIGTERM)

    def wait_for_end(self, timeout: float = WAIT) -> bool:
        """Wait until its main process has ended."""
        return bool(eventually(lambda: not self.alive, timeout))

    def kill(self) -> None:
        """End the whole group with `kill -9`."""
        self._process.kill()

    def kill_main_only(self) -> None:
        """End the main process with `kill -9`; the children of its pool are left."""
        os.kill(self.pid, signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the whole group."""
        self._process.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._process.resume()

    def stop(self) -> None:
        """Warm shutdown, then `kill -9` for what is left."""
        self._process.stop(timeout=25)

    def log(self) -> str:
        """The whole log."""
        with suppress(OSError):
            return self.log_path.read_text(errors="replace")
        return ""

    def complaints(self) -> list[str]:
        """What the acknowledger logs where something went wrong inside it."""
        words = ("acknowledger failed", "owner failed", "will be repeated", "another owner has")
        return [line for line in self.log().splitlines() if any(word in line for word in words)]

    def signals(self) -> dict[str, int]:
        """How often each signal was sent in its main process: `<task's name> <signal>`."""
        counts: Any = self._rig.log.hgetall(self.signals_key)
        return {name.decode(): int(count) for name, count in counts.items()}


class Rig:
    """An app with a prefix, queue and exchanges of its own, and what a test needs around it.

    Args:
        pulsar_url: the WebSocket base of the broker.
        admin: an admin client for it.
        redis_url: the Redis of the lanes; broker and result backend too, unless `conf` says else.
        folder: for logs.
        conf: more settings.
    """

    def __init__(
        self,
        pulsar_url: str,
        admin: PulsarAdmin,
        redis_url: str,
        folder: Path,
        conf: dict[str, Any] | None = None,
    ) -> None:
        self.name = f"acc-{uuid.uuid4().hex[:10]}"
        self.pulsar_url = pulsar_url
        self.admin = admin
        self.redis_url = redis_url
        self.folder = folder
        self.log = redis.Redis.from_url(redis_url)
        self._keys: list[str] = []
        self._open = ExitStack()
        self.conf: dict[str, Any] = {
            **own_names(self.name, redis_url),
            "result_backend": redis_url,
            "result_expires": 900,
            "stargate_url": pulsar_url,
            "stargate_lease": LEASE,
            "stargate_topic": self.topic(),
            "stargate_topics": {"orders": self.topic("orders"), "lanes": self.topic("lanes")},
            **(conf or {}),
        }
        os.environ.setdefault(LOG_URL, redis_url)
        self.app: Celery = make_app(self.conf)
        self.stargate = Stargate.of(self.app)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.close()
        self.stargate.close()
        held: Any = self.app.backend
        # What the app leaves open itself; and a result that is collected later must find nothing.
        if hasattr(held, "result_consumer"):
            held.result_consumer.stop()
            vars(held.result_consumer).update(_pubsub=None, _consumer=None)
        if str(self.conf["result_backend"]).startswith("redis"):
            held.client.connection_pool.disconnect()
        self.app.close()
        if self._keys:
            self.log.delete(*self._keys)
        forget(self.log, self.name)
        self.log.close()

    @property
    def produce(self) -> ProduceTask:
        """The produce task of this app."""
        task: Any = self.app.tasks["celery_stargate.produce"]
        assert isinstance(task, ProduceTask)
        return task

    @property
    def topic_name(self) -> str:
        """The default topic."""
        return str(self.conf["stargate_topic"])

    def topic_of(self, name: str) -> str:
        """The full name of the topic that a name in the settings stands for."""
        return str(self.conf["stargate_topics"][name])

    def task(self, name: str) -> Any:
        """One of the app's tasks, by the short name it has in `tasks.py`."""
        return self.app.tasks[f"acceptance.{name}"]

    def topic(self, word: str = "t") -> str:
        """The full name of a topic that nobody used."""
        return f"persistent://public/default/{self.name}-{word}-{uuid.uuid4().hex[:6]}"

    def refused(self) -> str:
        """The full name of a topic that Pulsar refuses: its namespace does not exist."""
        return f"persistent://public/no-such-namespace/{uuid.uuid4().hex[:6]}"

    def key(self) -> str:
        """A list of the test's own, for what callbacks get."""
        key = f"{self.name}:{uuid.uuid4().hex}"
        self._keys.append(key)
        return key

    def worker(self, **options: Any) -> Worker:
        """A worker of this app, which is not started."""
        return Worker(self, **options)

    def record(self, key: str) -> Any:
        """A signature that writes its first argument and its task id into a list."""
        return self.task("record").s(key)

    def recorded(self, key: str, count: int = 1, timeout: float = WAIT) -> list[dict[str, Any]]:
        """Wait for `count` entries in such a list, and return all that is there."""
        eventually(lambda: self.log.llen(key) >= count, timeout)
        entries: Any = self.log.lrange(key, 0, -1)
        assert len(entries) >= count, f"{len(entries)} of {count} callbacks came in {timeout:g} s"
        return [json.loads(entry) for entry in entries]

    def stored(self, topic: str) -> int:
        """How many entries the topic holds."""
        return int(self.admin.internal_stats(topic)["numberOfEntries"])

    def read(self, topic: str, count: int | None = None, timeout: float = WAIT) -> list[Any]:
        """Read a topic from its earliest message with a plain WebSocket reader.

        Args:
            count: how many messages; by default all that it holds now.
        """
        wanted = self.stored(topic) if count is None else count
        messages: list[Any] = []
        url = f"{self.pulsar_url}/ws/v2/reader/{topic_path(topic)}?messageId=earliest"
        end = time.monotonic() + timeout
        with connect(url, compression=None, open_timeout=45, max_size=None, proxy=None) as reader:
            while len(messages) < wanted:
                message = json.loads(reader.recv(timeout=max(0.1, end - time.monotonic())))
                reader.send(json.dumps({"messageId": message["messageId"]}))
                messages.append(message)
        return messages

    def texts(self, topic: str, count: int | None = None) -> list[str]:
        """The payloads of a topic, in its order."""
        return [text(message) for message in self.read(topic, count)]

    def owner(self, topic: str) -> str | None:
        """Who holds the lease of the topic's lane: the owner with its fencing token."""
        found: Any = self._redis.get(self._key(topic, "lease"))
        return None if found is None else found.decode()

    def pending(self, topic: str) -> int:
        """How many contexts the topic's lane holds."""
        found: Any = self._redis.hlen(self._key(topic, "contexts"))
        return int(found)

    def waiting(self, topic: str) -> tuple[int, int]:
        """How many messages the topic's lane holds, and how many of them may have been sent."""
        lane = f"{self.name}:{{{topic}#0}}"
        with self.log.pipeline(transaction=True) as pipeline:
            pipeline.hmget(f"{lane}:meta", "sent", "last")
            pipeline.xlen(f"{lane}:log")
            (sent, last), backlog = pipeline.execute()
        return int(backlog), int(sent or 0) - int(last or 0) + int(backlog)

    def lanes(self, word: str) -> list[str]:
        """The names of the lanes that callers have announced, of the topics with a word."""
        keyspace = self.stargate.settings.keyspace
        names = [
            name.decode()
            for registry in RegistryKeys.of_all(keyspace)
            for name in self._redis.zrange(registry.key("lanes"), 0, -1)
        ]
        return [name for name in names if f"-{word}-" in name]

    @property
    def _redis(self) -> Any:
        """A client of the Redis that holds the lanes."""
        return self.stargate.runtime.connections.sync()

    def _key(self, topic: str, part: str) -> str:
        """The key of a part of the topic's first lane."""
        return Lane(topic).key(self.stargate.settings.keyspace, part)

    def run_worker_to_its_end(self, worker: Worker, timeout: float = WAIT) -> tuple[int, str]:
        """Run a worker that should not start; its exit code and all it wrote."""
        done = subprocess.run(
            worker.command,
            env=worker.env,
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
            start_new_session=True,
        )
        return done.returncode, done.stdout
