"""The examples, run as their pages say: real workers, a real web server, Redis and Pulsar."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from celery_stargate.testing import LocalPulsar
from tests.acceptance.rig import WAIT, eventually, text
from tests.acceptance.shop import Shop
from tests.plugin_project import installed
from tests.servers.admin import topic_path
from tests.servers.fixtures import PulsarAddress, require
from tests.servers.ports import free_ports
from tests.servers.process import ServerProcess
from tests.servers.redis import RedisServer, missing_reason

_ROOT = Path(__file__).parents[2]
_PLAIN = _ROOT / "examples" / "plain"
_DJANGO = _ROOT / "examples" / "django_shop"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of these tests' own: the examples keep to their default names in it."""
    require(missing_reason())
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


def _read(pulsar: PulsarAddress, topic: str) -> list[dict[str, Any]]:
    """What a topic holds, by a plain WebSocket reader."""
    count = int(pulsar.admin.internal_stats(topic)["numberOfEntries"])
    url = f"{pulsar.url}/ws/v2/reader/{topic_path(topic)}?messageId=earliest"
    messages = []
    with connect(url, compression=None, open_timeout=45, max_size=None, proxy=None) as reader:
        for _ in range(count):
            messages.append(json.loads(reader.recv(timeout=WAIT)))
            reader.send(json.dumps({"messageId": messages[-1]["messageId"]}))
    return messages


def test_the_program_of_the_readme(
    pulsar: PulsarAddress, redis: RedisServer, tmp_path: Path
) -> None:
    """`python shop.py` prints Pulsar's receipt, the message is in the topic under that id, and the
    worker runs `paid` with the same receipt."""
    env = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "PYTHONUNBUFFERED": "1",
        "CELERY_BROKER_URL": redis.url,
        "CELERY_RESULT_BACKEND": redis.url,
        "STARGATE_URL": pulsar.url,
    }
    worker = ServerProcess(
        "the plain example's worker",
        [sys.executable, "-m", "celery", "-A", "shop", "worker", "-l", "INFO", "-c", "1"],
        log_path=tmp_path / "worker.log",
        env=env,
        cwd=_PLAIN,
    )
    worker.start(lambda: " ready." in worker.log_path.read_text(), timeout=45)
    try:
        printed = subprocess.run(
            [sys.executable, "shop.py"],
            env=env,
            cwd=_PLAIN,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=True,
        ).stdout
        receipt = ast.literal_eval(printed)
        said = f"Pulsar has the order: {receipt['message_id']}"
        assert eventually(lambda: said in worker.log_path.read_text()), worker.log_tail()
    finally:
        worker.stop()

    assert receipt["status"] == "stored"
    stored = {each["messageId"]: each for each in _read(pulsar, receipt["topic"])}
    message = stored[receipt["message_id"]]
    assert (message["key"], text(message)) == ("order-17", "one lamp")


def test_the_program_of_the_readme_is_short() -> None:
    """It has at most 20 lines."""
    assert len((_PLAIN / "shop.py").read_text().splitlines()) <= 20


class Example:
    """A folder of the examples, on the tests' Redis and Pulsar.

    Args:
        folder: of the example; a name of those in the repository.
        logs: for what its processes print.
        env: more variables.
    """

    def __init__(self, folder: str | Path, logs: Path, **env: str) -> None:
        self._folder = _ROOT / "examples" / folder
        self._logs = logs
        self._env = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1", **env}

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run a program of it, and return what it prints."""
        run = subprocess.run(
            [sys.executable, *arguments],
            env=self._env,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=4 * WAIT,
            check=False,
        )
        assert run.returncode == code, run.stdout + run.stderr
        return run.stdout

    @contextmanager
    def process(self, ready: str, *arguments: str) -> Iterator[Callable[[str], bool]]:
        """Run a program until the end of the block; give what waits until it prints a text.

        Args:
            ready: what it prints when it has started.
            arguments: of Python.
        """
        process = ServerProcess(
            arguments[0],
            [sys.executable, *arguments],
            log_path=self._logs / f"{uuid.uuid4().hex[:8]}.log",
            env=self._env,
            cwd=self._folder,
        )
        process.start(lambda: ready in process.log_path.read_text(), timeout=45)
        try:
            yield lambda wanted: eventually(lambda: wanted in process.log_path.read_text())
        finally:
            process.stop()


def _topic() -> str:
    return f"persistent://public/default/example-{uuid.uuid4().hex[:12]}"


_WORKER = (" ready.", "-m", "celery", "-A", "shop", "worker", "-l", "INFO", "-c", "1")


def test_the_fastapi_shop(pulsar: PulsarAddress, redis: RedisServer, tmp_path: Path) -> None:
    """A view answers with the receipt; another at once, and a worker goes on after the receipt. A
    message that Pulsar refuses is a 502."""
    topic, port = _topic(), free_ports(1)[0]
    servers = {"REDIS_URL": redis.url, "STARGATE_URL": pulsar.url, "ORDERS": topic}
    shop = Example("fastapi_shop", tmp_path, **servers)

    def order(path: str, item: str) -> tuple[int, Any]:
        body = json.dumps({"item": item}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    with shop.process("Uvicorn running", "-m", "uvicorn", "shop:web", "--port", str(port)):
        status, receipt = order("/orders", "lamp")
        assert (status, receipt["topic"], receipt["status"]) == (201, topic, "stored")
        with shop.process(*_WORKER) as printed:
            status, taken = order("/orders/later", "chair")
            assert status == 202
            assert printed(f"Pulsar has {taken['order']} at ")
        assert [json.loads(text(each))["item"] for each in _read(pulsar, topic)] == [
            "lamp",
            "chair",
        ]
        pulsar.admin.terminate(topic)
        status, failed = order("/orders", "table")
        assert (status, failed["detail"]["status"]) == (502, "refused")
        assert order("/orders", "")[0] == 502


def test_the_bulk_loader(pulsar: PulsarAddress, redis: RedisServer, tmp_path: Path) -> None:
    """All lines of a file are in the topic, in order; lines that fail are printed."""
    loader = Example("bulk_loader", tmp_path, REDIS_URL=redis.url, STARGATE_URL=pulsar.url)
    topic, lines = _topic(), [f"order {number}" for number in range(6_000)]
    file = tmp_path / "orders.txt"
    file.write_text("\n".join(lines))
    assert loader.run("load.py", str(file), topic) == "6000 stored, 0 failed\n"
    assert [text(each) for each in _read(pulsar, topic)] == lines

    pulsar.admin.terminate(topic)
    file.write_text("lamp\nchair\n")
    printed = loader.run("load.py", str(file), topic, code=1).splitlines()
    assert printed[-1] == "0 stored, 2 failed"
    assert [line.rpartition(": ")[2] for line in printed[:-1]] == ["lamp", "chair"]


def test_the_saga(pulsar: PulsarAddress, redis: RedisServer, tmp_path: Path) -> None:
    """Each step waits for Pulsar; where it refuses a message, all steps are undone."""
    stock, payments = _topic(), _topic()
    servers = {"REDIS_URL": redis.url, "STARGATE_URL": pulsar.url}
    saga = Example("saga", tmp_path, **servers, STOCK=stock, PAYMENTS=payments)
    with saga.process(*_WORKER) as printed:
        assert saga.run("shop.py", "17") == "complete\n"
        assert printed("order 17: complete")
        pulsar.admin.terminate(payments)
        saga.run("shop.py", "18", code=1)
        assert printed("order 18: undone, because ")
        assert [len(_read(pulsar, each)) for each in (stock, payments)] == [2, 1]


def test_the_script(pulsar: PulsarAddress, redis: RedisServer, tmp_path: Path) -> None:
    """It prints a receipt for each message; a refused one ends it with the reason."""
    topic = _topic()
    servers = {"REDIS_URL": redis.url, "STARGATE_URL": pulsar.url, "TOPIC": topic}
    script = Example("script", tmp_path, **servers)
    printed = script.run("publish.py").splitlines()
    assert [line.partition(" at ")[0] for line in printed] == [f"stored in {topic}"] * 4
    assert [text(each) for each in _read(pulsar, topic)][1:] == ["line 1", "line 2", "line 3"]
    pulsar.admin.terminate(topic)
    script.run("publish.py", code=1)


def test_the_idempotent_consumer(pulsar: PulsarAddress, redis: RedisServer, tmp_path: Path) -> None:
    """A payment that is published twice is booked once, after a restart too."""
    servers = {"REDIS_URL": redis.url, "STARGATE_URL": pulsar.url}
    topic, database = _topic().rpartition("/")[2], str(tmp_path / "accounts.sqlite3")
    example = Example("idempotent_consumer", tmp_path, **servers, TOPIC=topic, DATABASE=database)
    for restart in range(2):
        with example.process("waiting for payments", "consume.py") as printed:
            if not restart:
                example.run("publish.py", "payment-1", "20")
                assert printed("payment-1: booked, 20 in all")
            example.run("publish.py", "payment-1", "20")
            assert printed("payment-1: known already, 20 in all")
    with example.process("waiting for payments", "consume.py") as printed:
        example.run("publish.py", "payment-2", "5")
        assert printed("payment-2: booked, 25 in all")


def test_the_tests_of_the_page(redis: RedisServer, tmp_path: Path) -> None:
    """A user's tests pass as docs/testing.md prints them: in memory, and with a worker."""
    shutil.copytree(_ROOT / "examples" / "tested", tmp_path / "tested")
    plugin = [] if installed() else ["-p", "pytest_celery_stargate"]
    printed = Example(tmp_path / "tested", tmp_path).run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, ".")
    )
    assert "5 passed" in printed


@pytest.fixture
def shop(pulsar: PulsarAddress, redis: RedisServer, tmp_path: Path) -> Iterator[Shop]:
    """The Django project, its web server and a worker running."""
    shop = Shop(tmp_path, redis.url, pulsar.url)
    try:
        shop.start(worker=True)
        yield shop
    finally:
        shop.stop()


def test_the_django_shop_goes_on_after_the_receipt(shop: Shop, pulsar: PulsarAddress) -> None:
    """An order is new when the view answers, and published when its receipt is there; the async
    view answers when it is published; a topic that takes no more makes an order fail, with
    Pulsar's sentence."""
    status, taken = shop.request("/orders/", {"item": "lamp", "quantity": 2})
    assert (status, taken["status"], taken["message_id"]) == (202, "new", "")
    published = shop.settled(taken["id"])
    assert published["status"] == "published", published

    status, at_once = shop.request("/orders/now/", {"item": "chair"})
    assert (status, at_once["status"]) == (201, "published")
    assert shop.order(at_once["id"]) == at_once

    stored = {each["messageId"]: each for each in _read(pulsar, shop.topic)}
    assert stored.keys() == {published["message_id"], at_once["message_id"]}
    message = stored[published["message_id"]]
    assert json.loads(text(message)) == {"id": taken["id"], "item": "lamp", "quantity": 2}
    assert message["key"] == f"order-{taken['id']}"
    assert message["properties"] == {"type": "order-placed"}

    pulsar.admin.terminate(shop.topic)
    status, taken = shop.request("/orders/", {"item": "table"})
    assert status == 202
    failed = shop.settled(taken["id"])
    assert failed["status"] == "failed"
    assert "terminated" in failed["reason"].lower()
    status, at_once = shop.request("/orders/now/", {"item": "table"})
    assert (status, at_once["status"]) == (502, "failed")
    assert "terminated" in at_once["reason"].lower()
    assert len(_read(pulsar, shop.topic)) == 2


def test_the_django_shop_checks_and_survives(tmp_path: Path) -> None:
    """A wrong form is a 400 and makes no order. Without Redis an order is taken all the same: its
    event waits in the outbox."""
    with LocalPulsar() as local:
        nowhere = f"redis://127.0.0.1:{free_ports(1)[0]}/0"
        shop = Shop(tmp_path, nowhere, local.url)
        try:
            shop.start(worker=False)
            status, answer = shop.request("/orders/", {"item": "", "quantity": 1})
            assert (status, list(answer["errors"])) == (400, ["item"])

            status, kept = shop.request("/orders/", {"item": "lamp"})
            assert (status, kept["id"], kept["status"]) == (202, 1, "new")
            assert shop.order(1) == kept
            assert json.loads(shop.manage("stargate_outbox_stats", "--json"))["states"] == {
                **dict.fromkeys(("recorded", "stored", "refused", "unknown", "discarded"), 0),
                "pending": 1,
            }
            with urllib.request.urlopen(shop.url, timeout=WAIT) as page:
                assert "lamp" in page.read().decode()
        finally:
            shop.stop()
        assert not local.messages(shop.topic)


def test_the_django_shop_tests_itself(tmp_path: Path) -> None:
    """By tests that need no server."""
    Shop(tmp_path, "redis://127.0.0.1:1", "ws://127.0.0.1:1").manage("test", "orders")


_WITH_PYTEST = """
import pytest
from orders.models import Order


@pytest.mark.django_db
def test_in_memory(client, stargate_eager, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        client.post("/orders/", {"item": "lamp"})
    stargate_eager.assert_produced("orders", count=1)
    assert Order.objects.get().status == "published"


@pytest.mark.django_db(transaction=True)
def test_with_a_worker(client, stargate_worker, stargate_pulsar):
    client.post("/orders/", {"item": "lamp"})
    stargate_pulsar.assert_produced("orders", count=1)
"""


def test_the_django_shop_with_pytest_django(redis: RedisServer, tmp_path: Path) -> None:
    """The fixtures work beside those of pytest-django, in the transaction of a test and without."""
    if importlib.util.find_spec("pytest_django") is None:
        require("pytest-django is not installed; pip install pytest-django")
    shutil.copytree(_DJANGO, tmp_path / "shop")
    (tmp_path / "shop" / "test_orders.py").write_text(_WITH_PYTEST)
    plugin = [] if installed() else ["-p", "pytest_celery_stargate"]
    Example(tmp_path / "shop", tmp_path, DJANGO_SETTINGS_MODULE="shop.settings").run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "test_orders.py")
    )


def test_the_django_shop_has_its_migrations(tmp_path: Path) -> None:
    """The migrations are those of the models."""
    shop = Shop(tmp_path, "redis://127.0.0.1:1", "ws://127.0.0.1:1")
    shop.manage("makemigrations", "--check", "--dry-run")
