"""Faults that can be switched on while the stand-in runs, from any thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec


class Peer(Protocol):
    """A producer's socket, as the faults see it."""

    def write(self, text: bytes) -> None:
        """Send a text frame."""

    def close(self, code: int | None) -> None:
        """Close it with a code, or abruptly (None): no close frame, the socket is gone."""

    def close_saying(self, code: int, reason: str) -> None:
        """Close it with a code and a reason."""


class Frame(msgspec.Struct, frozen=True):
    """A frame that a producer sent, for `Faults.fail_sends` to choose by.

    Example:
        >>> with LocalPulsar() as pulsar:
        ...     pulsar.faults.fail_sends("$TimeoutException", when=lambda frame: frame.key == "a")
    """

    #: The topic's full name.
    topic: str
    #: The producer's name.
    producer: str
    #: The label that the receipt echoes.
    context: str | None
    #: The payload, decoded.
    payload: bytes
    #: The key; None without one.
    key: str | None


class _Countdown:
    """Counts down `count` times; None counts for ever."""

    def __init__(self, count: int | None) -> None:
        self.left = count

    def take(self) -> bool:
        if self.left is None:
            return True
        self.left -= 1
        return self.left >= 0


class _Failure(msgspec.Struct):
    message: str
    when: Callable[[Frame], bool]
    countdown: _Countdown


class _Refused(msgspec.Struct):
    status: int
    sentence: str
    countdown: _Countdown


class Faults:
    """The faults of one `LocalPulsar`: `pulsar.faults`. At first all are off.

    Any thread may call the setters; they apply to later frames. *stored* and *not stored* say what
    happens to the message.

    It has more methods than a class should: each fault has one setter, and one question that the
    server asks.

    Example:
        >>> with LocalPulsar() as pulsar:
        ...     pulsar.faults.duplicate_receipts(1)
        ...     url = f"{pulsar.url}/ws/v2/producer/persistent/public/default/orders"
        ...     receipt = produce(url, "one lamp")
        ...     pulsar.counters.stored
        1
    """

    def __init__(self, run: Callable[[Callable[[], None]], None]) -> None:
        self._run = run
        self._held: list[tuple[Peer, bytes]] = []
        self._reset()

    def _reset(self) -> None:
        self._hold = False
        self._drop: _Countdown | None = None
        self._duplicate: _Countdown | None = None
        self._garbage: tuple[bytes, _Countdown] | None = None
        self._reorder = 0
        self._failures: list[_Failure] = []
        self._ignore: _Countdown | None = None
        self._close_receipts: tuple[_Countdown, int | None] | None = None
        self._close_frames: tuple[_Countdown, int | None] | None = None
        self._refusals: deque[_Refused] = deque()
        self._delay: tuple[float, _Countdown] | None = None
        self.frozen = False

    def clear(self) -> None:
        """Switch all faults off, and send the receipts that are held."""
        self.thaw()
        self._reset()
        self._flush()

    # -- receipts: the message was stored -------------------------------------------------------

    def hold_receipts(self) -> None:
        """Hold receipts (stored) until `release_receipts` or `clear`."""
        self._hold = True

    def release_receipts(self) -> None:
        """Send the held receipts in order, on connections that are still open."""
        self._hold = False
        self._flush()

    def drop_receipts(self, count: int | None = None) -> None:
        """Send no receipt (stored) for the next `count` messages, or from now on."""
        self._drop = _Countdown(count)

    def duplicate_receipts(self, count: int | None = 1) -> None:
        """Send the next `count` receipts twice."""
        self._duplicate = _Countdown(count)

    def reorder_receipts(self, window: int) -> None:
        """Gather `window` receipts, then send them last first; 0 switches it off and sends the
        rest."""
        self._reorder = window
        if not window:
            self._flush()

    def garbage_receipts(
        self, count: int | None = 1, text: str = "<html>no receipt</html>"
    ) -> None:
        """Send this text instead of the next `count` receipts (stored)."""
        self._garbage = (text.encode(), _Countdown(count))

    # -- frames ---------------------------------------------------------------------------------

    def fail_sends(
        self,
        message: str,
        *,
        when: Callable[[Frame], bool] = lambda frame: True,
        count: int | None = None,
    ) -> None:
        """Answer chosen frames with `send-error:8` and this `errorMsg` (not stored).

        Args:
            message: the text, such as
                `org.apache.pulsar.client.api.PulsarClientException$TimeoutException: …`.
            when: which frames, by topic, producer, context, payload, key. It runs in the
                stand-in's thread.
            count: how many of them; all by default.
        """
        self._failures.append(_Failure(message, when, _Countdown(count)))

    def ignore_frames(self, count: int | None = None) -> None:
        """Ignore the next `count` frames, or all from now on (not stored)."""
        self._ignore = _Countdown(count)

    # -- sockets --------------------------------------------------------------------------------

    def close_after_receipts(self, count: int, *, code: int | None = None) -> None:
        """Close the socket on which the `count`-th receipt was sent, right after it.

        Args:
            count: receipts from now on, over all sockets.
            code: a close code, such as 1009 or 1011; by default the socket goes without a close
                frame, as when the broker is killed.
        """
        self._close_receipts = (_Countdown(count - 1), code)

    def close_after_frames(self, count: int, *, code: int | None = None) -> None:
        """Close the socket on which the `count`-th frame came: stored, but without its receipt.

        Args:
            count: frames from now on, over all sockets.
            code: a close code; by default the socket goes without a close frame.
        """
        self._close_frames = (_Countdown(count - 1), code)

    def refuse_handshakes(
        self, status: int, *, count: int | None = 1, reason: str = "Refused by a fault"
    ) -> None:
        """Answer handshakes with a status. Calls add up, in order.

        Args:
            status: the HTTP status.
            count: how many handshakes; None: all.
            reason: what the page says.
        """
        self._refusals.append(_Refused(status, reason, _Countdown(count)))

    def delay_handshakes(self, seconds: float, *, count: int | None = None) -> None:
        """Answer handshakes late. As in the broker, the producer is created before the answer, so
        its name is taken while the client waits, and after it has given up.

        Args:
            seconds: how long each waits.
            count: how many handshakes; None: all.
        """
        self._delay = (seconds, _Countdown(count))

    def freeze(self) -> None:
        """Stop reading from all sockets, so that pings get no answer, like a frozen server."""
        self.frozen = True
        self._run(lambda: None)

    def thaw(self) -> None:
        """Continue after `freeze`."""
        self.frozen = False
        self._run(lambda: None)

    # -- for the server, in its own thread ------------------------------------------------------

    def take_refusal(self) -> tuple[int, str] | None:
        """Return the status and reason if a fault refuses this handshake."""
        while self._refusals:
            first = self._refusals[0]
            if first.countdown.take():
                return first.status, first.sentence
            self._refusals.popleft()
        return None

    def take_delay(self) -> float:
        """Return the delay of this handshake's answer, in seconds."""
        if self._delay is not None and self._delay[1].take():
            return self._delay[0]
        return 0.0

    def takes_frame(self) -> bool:
        """Return whether this frame is processed."""
        return self._ignore is None or not self._ignore.take()

    @property
    def fails_some(self) -> bool:
        """Whether `failure` has to be asked."""
        return bool(self._failures)

    def failure(self, frame: Frame) -> str | None:
        """The text of the error that answers this frame, if a fault says so."""
        for rule in self._failures:
            if rule.when(frame) and rule.countdown.take():
                return rule.message
        return None

    def closes_on_frame(self, peer: Peer) -> bool:
        """Whether the frame that was just stored is the last of its socket, which is then
        closed."""
        rule = self._close_frames
        if rule is None or rule[0].take():
            return False
        self._close_frames = None
        peer.close(rule[1])
        return True

    def receipt(self, peer: Peer, text: bytes) -> None:
        """Send a receipt, with the faults applied."""
        if self._drop is not None and self._drop.take():
            return
        if self._garbage is not None and self._garbage[1].take():
            text = self._garbage[0]
        copies = 2 if self._duplicate is not None and self._duplicate.take() else 1
        for _ in range(copies):
            if self._hold or self._reorder:
                self._held.append((peer, text))
                if not self._hold and len(self._held) >= self._reorder:
                    self._send_held(last_first=True)
            else:
                self._send(peer, text)

    def _flush(self) -> None:
        self._run(self._send_held)

    def _send_held(self, *, last_first: bool = False) -> None:
        held, self._held = self._held, []
        for peer, text in reversed(held) if last_first else held:
            self._send(peer, text)

    def _send(self, peer: Peer, text: bytes) -> None:
        peer.write(text)
        rule = self._close_receipts
        if rule is not None and not rule[0].take():
            self._close_receipts = None
            peer.close(rule[1])
