"""The table of steps: the methods that a message passes on its way, in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, Literal

from redis.exceptions import TimeoutError as RedisTimeout

from celery_stargate import StoreUnavailable
from celery_stargate.pulsar.link import LinkBroken

__all__ = ["ACTIONS", "STEPS", "WHENS", "Action", "Point", "Step", "When", "points"]

Action = Literal["kill", "exception", "stall"]
When = Literal["before", "after"]
ACTIONS: tuple[Action, ...] = ("kill", "exception", "stall")
WHENS: tuple[When, ...] = ("before", "after")


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: on the command line and in the report.
        does: what it does, in a few words.
        target: `module:Class.method`.
        error: what it may raise in life; the action `exception` raises it.
        caller: whether the process that calls takes it, and not the worker.
        once: whether it is taken once or twice only: by an owner when it begins, or for all
            callbacks together.
    """

    name: str
    does: str
    target: str
    error: Callable[[], Exception]
    caller: bool = False
    once: bool = False

    def resolve(self) -> tuple[Any, str]:
        """Return the class and the name of its method.

        Raises:
            AttributeError: there is no such method: the code has changed, and so must the table.
        """
        module, _, path = self.target.partition(":")
        kind, _, name = path.partition(".")
        owner = getattr(import_module(module), kind)
        if name not in vars(owner):
            raise AttributeError(f"{kind} has no method {name} of its own")
        return owner, name


def _redis() -> Exception:
    return RedisTimeout("the answer was lost")


def _store() -> Exception:
    return StoreUnavailable("the answer was lost")


def _link() -> Exception:
    return LinkBroken("the connection broke")


_LANE = "celery_stargate.lanes.leased:LeasedLane"
STEPS: tuple[Step, ...] = (
    Step("record", "the call is recorded in its lane",
         "celery_stargate.lanes.outbox:Outbox.put", _store, caller=True),
    Step("announce", "the lane is announced to the workers",
         "celery_stargate.lanes.registry:CallerRegistry.announce", _redis, caller=True, once=True),
    Step("lease", "a worker takes the lane's lease", f"{_LANE}.acquire", _redis, once=True),
    Step("due", "it looks for effects that are left over", f"{_LANE}.due", _redis, once=True),
    Step("open", "it connects to Pulsar",
         "celery_stargate.pulsar.producer:Producer.open", _link, once=True),
    Step("read", "it reads messages of the log, which are marked as tried",
         f"{_LANE}.read", _redis),
    Step("send", "frames are written to the socket",
         "celery_stargate.pulsar.producer:Producer.send", _link),
    Step("receipt", "a receipt is matched with its message",
         "celery_stargate.pulsar.session:Session._take", _link),
    Step("complete", "a message is settled, and its result stored, in one step",
         f"{_LANE}.complete", _redis),
    Step("settle", "a message with effects is settled", f"{_LANE}.settle", _redis),
    Step("notify", "the process that waits for a list is notified",
         "celery_stargate.lanes.inbox:Inboxes.notify", _store, once=True),
    Step("callback", "callbacks are published",
         "celery_stargate.effects.callback_stage:CallbackStage.perform", _redis, once=True),
    Step("result", "results are stored",
         "celery_stargate.effects.results.write:ResultBatch.flush", _redis, once=True),
    Step("finish", "the context is deleted", f"{_LANE}.finish", _redis),
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One crash point, and what happens there."""

    step: Step
    when: When
    action: Action

    @property
    def name(self) -> str:
        """As the command line has it."""
        return f"{self.step.name}-{self.when}-{self.action}"


def points() -> list[Point]:
    """All of them: each step, before and after, with each action."""
    return [Point(*each) for each in product(STEPS, WHENS, ACTIONS)]
