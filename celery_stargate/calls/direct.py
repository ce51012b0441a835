"""Publish over a socket of the call's own, without Redis and without a worker."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload
from urllib.parse import parse_qs, urlsplit

from celery_stargate.calls.given import OneMessage, Timeout
from celery_stargate.calls.prepare import Call, Preparation
from celery_stargate.errors import ConfigurationError, shown
from celery_stargate.model.context import new_context
from celery_stargate.model.deadline import deadline_failure
from celery_stargate.model.durations import read_timeout
from celery_stargate.model.entry import Entry
from celery_stargate.model.fields import Token
from celery_stargate.model.options import ProducerOptions
from celery_stargate.model.outcome import Failure, Outcome, Receipt, failure_status
from celery_stargate.model.outcomes import CallOutcomes, Receipts
from celery_stargate.model.settings import Settings
from celery_stargate.model.token_transport import require_safe_transport
from celery_stargate.model.topic import split_producer_url
from celery_stargate.pulsar.endpoint import Endpoint
from celery_stargate.pulsar.link import HandshakeRefused, LinkBroken
from celery_stargate.pulsar.producer import Producer
from celery_stargate.pulsar.session import Session, SessionRules
from celery_stargate.pulsar.window import Window
from celery_stargate.support.backoff import Backoff
from celery_stargate.support.log import logger_of

__all__ = ["apublish_once", "produce", "publish", "publish_once"]

logger = logger_of(__name__)


@overload
def produce(
    url: str,
    messages: list[Any],
    *,
    token: Token | None = None,
    timeout: Timeout = 30.0,
    tls_ca: str | None = None,
    tls_certificate: str | None = None,
    tls_key: str | None = None,
    tls_server_name: str | None = None,
    max_frame_size: int | None = None,
    allow_token_without_tls: bool = False,
    allowed_hosts: Collection[str] | None = None,
) -> list[Receipt]: ...


@overload
def produce(
    url: str,
    messages: OneMessage,
    *,
    token: Token | None = None,
    timeout: Timeout = 30.0,
    tls_ca: str | None = None,
    tls_certificate: str | None = None,
    tls_key: str | None = None,
    tls_server_name: str | None = None,
    max_frame_size: int | None = None,
    allow_token_without_tls: bool = False,
    allowed_hosts: Collection[str] | None = None,
) -> Receipt: ...


def produce(  # noqa: PLR0913  # public, and keyword-only
    url: str,
    messages: object,
    *,
    token: Token | None = None,
    timeout: Timeout = 30.0,
    tls_ca: str | None = None,
    tls_certificate: str | None = None,
    tls_key: str | None = None,
    tls_server_name: str | None = None,
    max_frame_size: int | None = None,
    allow_token_without_tls: bool = False,
    allowed_hosts: Collection[str] | None = None,
) -> Receipts:
    """Publish to a producer's URL and wait, without an app, Redis or a worker. Nothing is durable.

    Arguments:
        url: ``ws://HOST:PORT/ws/v2/producer/persistent/TENANT/NAMESPACE/TOPIC``, with any of
            Pulsar's query parameters.
        messages: text, bytes, ``(key, payload)``, a mapping, a Message, or a list of these.
        token: text, or a callable that returns it.
        timeout: seconds or a timedelta for all of it.
        tls_ca, tls_certificate, tls_key, tls_server_name: as the settings of that name.
        max_frame_size: bytes of a frame at most; by default Pulsar's own 1,048,576.
        allow_token_without_tls: as the setting of that name; a ``token`` in the URL counts, too.
        allowed_hosts: the hosts that the URL may have, each with or without its port
            (``pulsar.example`` or ``pulsar.example:8443``). Give it where the URL comes from
            somebody else: by default the call connects to any host.

    Returns:
        The :class:`~celery_stargate.Receipt`; for a list the list of receipts, in order.

    Raises:
        ConfigurationError: the URL, its host or a TLS file.
        InvalidMessage: a message; nothing was sent.
        ProduceError: a message was refused, or its outcome is unknown; for a list the error holds
            all outcomes.
        ProduceTimeout: the deadline passed.

    Example:
        >>> with LocalPulsar() as pulsar:
        ...     url = f"{pulsar.url}/ws/v2/producer/persistent/public/default/orders"
        ...     receipts = produce(url, ["one lamp", ("order-18", "one chair")], timeout=10)
        >>> [receipt.status for receipt in receipts]
        ['stored', 'stored']
    """
    service, topic, query = split_producer_url(url)
    _require_allowed(service, allowed_hosts)
    if not allow_token_without_tls and "token" in parse_qs(query, keep_blank_values=True):
        require_safe_transport(service)
    given = {
        "stargate_url": service,
        "stargate_token": token,
        "stargate_tls_ca": tls_ca,
        "stargate_tls_certificate": tls_certificate,
        "stargate_tls_key": tls_key,
        "stargate_tls_server_name": tls_server_name,
        "stargate_max_frame_size": max_frame_size,
        "stargate_allow_token_without_tls": allow_token_without_tls,
    }
    settings = Settings.read({name: value for name, value in given.items() if value is not None})
    call = Preparation(topic, settings.options).call(messages, new_context())
    outcomes = publish(Endpoint.of(settings), call, read_timeout(timeout), query)
    return CallOutcomes(call.context, call.is_list, outcomes).answer()


def _require_allowed(service: str, allowed: Collection[str] | None) -> None:
    """Raise if a service's host is not among those that it may be."""
    if allowed is None:
        return
    if isinstance(allowed, str):
        raise ConfigurationError("allowed_hosts must be a list of hosts, not str")
    parts = urlsplit(service)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    where = f"{host}:{port}"
    if not {host, parts.hostname, where} & {each.lower() for each in allowed}:
        raise ConfigurationError(f"the URL's host is {shown(where)}, which is not in allowed_hosts")


def publish(endpoint: Endpoint, call: Call, seconds: float, query: str = "") -> tuple[Outcome, ...]:
    """Publish a call's messages.

    Arguments:
        endpoint: Pulsar's WebSocket service.
        call: what to publish.
        seconds: until the deadline of all messages.
        query: more parameters of the producer's URL.

    Returns:
        The outcome of each message, in order.

    Raises:
        ConfigurationError: the token or a TLS file is not usable.
    """
    found: list[Outcome] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            found.extend(asyncio.run(_publish(endpoint, call, seconds, query)))
        except BaseException as error:
            failed.append(error)

    # In a thread of its own: the caller's may have an event loop running.
    thread = threading.Thread(target=work, name="stargate-produce", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return tuple(found)


def publish_once(endpoint: Endpoint, call: Call, seconds: float) -> tuple[Outcome, ...]:
    """Publish in the calling thread, and do not wait for a Pulsar that is not there.

    If this thread runs an event loop, another thread publishes meanwhile.

    Arguments, returns and errors: as :func:`publish`.
    """
    work = apublish_once(endpoint, call, seconds)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # With a factory, the runner leaves the thread's event loop as it is.
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            return runner.run(work)
    with ThreadPoolExecutor(1, thread_name_prefix="stargate-produce") as executor:
        return executor.submit(asyncio.run, work).result()


async def apublish_once(endpoint: Endpoint, call: Call, seconds: float) -> tuple[Outcome, ...]:
    """Do as :func:`publish_once` does, in the running event loop."""
    return tuple(await _publish(endpoint, call, seconds, "", patient=False))


async def _publish(
    endpoint: Endpoint, call: Call, seconds: float, query: str, *, patient: bool = True
) -> list[Outcome]:
    run = _Run(call, patient=patient)
    try:
        async with asyncio.timeout(seconds):
            await run.until_done(endpoint, query)
    except TimeoutError:
        pass
    finally:
        call.end_trace()
    return run.outcomes()


class _Run:
    """The messages of one call, over as many connections as it takes.

    Arguments:
        call: what to publish.
        patient: wait for a Pulsar that cannot be reached; else its messages fail at once.
    """

    def __init__(self, call: Call, *, patient: bool) -> None:
        self._call = call
        self._patient = patient
        self._entries = [
            Entry(number, part.label, part.frame, number - 1 if len(call.parts) > 1 else -1)
            for number, part in enumerate(call.parts, start=1)
        ]
        self._outcomes: dict[str, Outcome] = {}
        self._sent = 0
        self._waiting: deque[Entry] = deque()

    async def until_done(self, endpoint: Endpoint, query: str) -> None:
        backoff = Backoff()
        while len(self._outcomes) < len(self._entries):
            producer = Producer(endpoint, self._call.topic, self._call.options, query)
            try:
                await producer.open()
                await self._session(producer).run()
            except HandshakeRefused as refused:
                if refused.permanent:
                    self._refuse(refused.sentence, f"http-{refused.status}")
                    return
                logger.info("Pulsar refused the producer for now: %s", refused)
                await asyncio.sleep(backoff.next())
            except asyncio.CancelledError:
                # The deadline passed: a close frame could wait for its answer as long again.
                producer.abort()
                raise
            except LinkBroken as error:
                logger.info("%s", error)
                producer.abort()
                if not (self._patient or self._sent):
                    self._refuse(str(error), "no-connection")
                    return
                await asyncio.sleep(backoff.next())
            finally:
                await producer.close()

    def _session(self, producer: Producer) -> Session:
        options: ProducerOptions = self._call.options
        self._waiting = deque(each for each in self._entries if each.label not in self._outcomes)
        return Session(
            producer,
            self._call.topic,
            self,
            self._settle,
            Window(options.window_size, options.max_in_flight_bytes),
            SessionRules(sent_before=self._sent),
        )

    async def next(self, count: int, size: int) -> Sequence[Entry]:
        """Return the next messages for a session, as its source."""
        taken: list[Entry] = []
        while self._waiting and len(taken) < count and (size > 0 or not taken):
            size -= len(self._waiting[0].frame)
            taken.append(self._waiting.popleft())
        if taken:
            self._sent = max(self._sent, taken[-1].number)
        return taken

    def _settle(self, entry: Entry, outcome: Outcome) -> None:
        self._outcomes.setdefault(entry.label, outcome)

    def _refuse(self, reason: str, code: str) -> None:
        for entry in self._entries:
            self._outcomes.setdefault(
                entry.label,
                Failure(
                    context=entry.context,
                    topic=str(self._call.topic),
                    status=failure_status(entry.number, self._sent),
                    reason=reason,
                    code=code,
                ),
            )

    def outcomes(self) -> list[Outcome]:
        """Return the outcome of each message; one without a receipt has passed its deadline."""
        topic = str(self._call.topic)
        return [
            self._outcomes.get(entry.label)
            or deadline_failure(entry.context, topic, sent=self._may_be_stored(entry))
            for entry in self._entries
        ]

    def _may_be_stored(self, entry: Entry) -> bool:
        return entry.number <= self._sent
