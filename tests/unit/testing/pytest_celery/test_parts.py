"""Pulsar's container over a `LocalPulsar`, the worker's app, and the addresses."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from celery_stargate import ConfigurationError, Message, Stargate, produce, testing
from celery_stargate.testing import LocalPulsar
from tests.plugin_project import apps_restored

TOPIC = "persistent://public/default/orders"
_NAME = "celery_stargate.testing.pytest_celery"
_FOLDER = Path(testing.__file__).parent / "pytest_celery"

Load = Callable[[str], Any]


class Container:
    """As much of pytest-celery's container as is used of it."""

    def __init__(self, pulsar: LocalPulsar) -> None:
        self.attrs = {"Config": {"Hostname": "broker"}}
        self._pulsar = pulsar

    def get_addr(self, port: str) -> tuple[str, str]:
        """The address of a port of the container as this process reaches it."""
        assert port == "8080/tcp"
        return self._pulsar.host, str(self._pulsar.port)

    def ready(self) -> bool:
        """The container runs."""
        return True


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Imports modules of the package as if pytest-celery were installed."""
    outside, package = ModuleType("pytest_celery"), ModuleType(_NAME)
    vars(outside)["CeleryTestContainer"] = Container
    # Its `__init__` would import all of it, and with it Docker's tools.
    package.__path__ = [str(_FOLDER)]
    for name in [name for name in sys.modules if name.startswith(_NAME)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytest_celery", outside)
    monkeypatch.setitem(sys.modules, _NAME, package)
    yield lambda name: importlib.import_module(f"{_NAME}.{name}")
    for name in [name for name in sys.modules if name.startswith(f"{_NAME}.")]:
        del sys.modules[name]


@pytest.fixture
def pulsar() -> Iterator[LocalPulsar]:
    """A fresh one."""
    with LocalPulsar() as local:
        yield local


@pytest.fixture
def container(load: Load, pulsar: LocalPulsar) -> Any:
    """A container whose broker is that one."""
    return load("pulsar").PulsarTestContainer(pulsar)


def test_what_is_published_can_be_read(container: Any, pulsar: LocalPulsar) -> None:
    """From the first message on, with key and properties; one that does not come is an error."""
    full = Message(payload="one", key="k", properties={"p": "v"})
    produce(f"{pulsar.url}/ws/v2/producer/{TOPIC.replace('://', '/')}", [full, "two"])
    assert container.stored(TOPIC) == 2
    assert container.read(TOPIC, 2) == [
        Message(payload=b"one", key="k", properties={"p": "v"}),
        Message(payload=b"two"),
    ]
    with pytest.raises(TimeoutError, match="2 of 3 messages"):
        container.read(TOPIC, 3, timeout=0.1)


@pytest.mark.parametrize("topic", ["orders", "persistent://public/orders"])
def test_a_short_name_of_a_topic(container: Any, topic: str) -> None:
    """Is an error that shows the form."""
    with pytest.raises(ValueError, match="persistent://TENANT/NAMESPACE/TOPIC"):
        container.stored(topic)


def test_where_it_is(container: Any, pulsar: LocalPulsar) -> None:
    """In the containers' network, and for this process."""
    assert container.celeryconfig == {
        "url": "ws://broker:8080",
        "host_url": pulsar.url,
        "hostname": "broker",
        "port": pulsar.port,
    }


def test_a_broker_that_does_not_answer_is_not_ready(container: Any, pulsar: LocalPulsar) -> None:
    """Though its container runs."""
    pulsar.stop()
    assert not container.ready()


def test_the_addresses_of_a_cluster(load: Load) -> None:
    """They are in its configuration; where they are not, the error says what to add."""
    addresses = load("addresses")
    urls = {"urls": ["ws://broker:8080"], "host_urls": ["ws://127.0.0.1:1"]}
    assert addresses.pulsar_addresses({"pulsar_cluster_config": urls}) == urls
    with pytest.raises(ConfigurationError, match="add the value of the fixture"):
        addresses.pulsar_addresses({})


@pytest.mark.parametrize("url", ["", "ws://broker:8080"])
def test_the_app_of_a_worker(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """It is configured by the line that pytest-celery writes, and reaches Pulsar by its own URL."""
    monkeypatch.delenv("STARGATE_URL", raising=False)
    if url:
        monkeypatch.setenv("STARGATE_URL", url)
    path = _FOLDER / "worker_app.py"
    lines = path.read_text("utf-8").splitlines()
    # pytest-celery looks for these three.
    assert {"imports = None", "config = None", 'app = Celery("celery_test_app")'} <= {*lines}
    given = "config = {'stargate_url': 'ws://127.0.0.1:1', 'stargate_topic': 'orders'}"
    for line, expected in (("config = None", None), (given, "ws://127.0.0.1:1")):
        text = "\n".join(line if each == "config = None" else each for each in lines)
        # By its own name, so that its coverage is recorded.
        names: dict[str, Any] = {"__name__": f"{_NAME}.worker_app"}
        with apps_restored():
            exec(compile(text, path, "exec"), names)
            assert Stargate.of(names["app"]).settings.url == (url or expected)
