"""Named cases: what the simulator once found, and the kind of seeds in which it shows itself.

A seed alone would not stay the same run when the code around it changes; a case is a range of seeds
with only the faults that matter, in which the mistake was found many times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.simulation.plan import Focus

__all__ = ["CASES", "Case"]


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Arguments:
        why: what went wrong, and what keeps it from that.
        focus: the faults.
        seeds: how many, from 0.
    """

    why: str
    focus: Focus
    seeds: int = 60


CASES: Mapping[str, Case] = {
    "a reply for no message": Case(
        "Pulsar says that a frame was no JSON, and not which: those behind it are stored under the "
        "numbers before theirs, and the replay of the refused one was taken for stored.",
        Focus(effectively_once=True, rates={"error receipt, no context": 0.1}),
    ),
    "errors for all in flight": Case(
        "A message that is stored and has no receipt is sent again and gets an error, as all "
        "behind it: a new generation would store it a second time. The numbers still hold.",
        Focus(
            effectively_once=True,
            rates={"cut before the receipt": 0.1, "errors from there on": 0.15},
        ),
    ),
    "an error, and no receipt for one before it": Case(
        "What is in flight before a message that gets an error has its own number for sure; only "
        "those behind it may have taken another's. A new generation stored the former twice.",
        Focus(
            effectively_once=True,
            rates={
                "cut before the receipt": 0.1,
                "errors from there on": 0.15,
                "receipt lost": 0.15,
            },
        ),
        seeds=200,
    ),
    "a refusal that does not get in": Case(
        "The owner skipped a revoked message, lost its lease before the refusal was settled, and "
        "the next one sent it, behind those that came after it.",
        Focus(
            effectively_once=False,
            rates={"command late": 0.1, "pause at a step": 0.01},
            timed=("revoked", "pause"),
        ),
        seeds=200,
    ),
    "dropped after it was passed on": Case(
        "A message of a non-persistent topic, passed on, sent again and then dropped, was told to "
        "be refused: it may have been read.",
        Focus(
            effectively_once=False,
            persistent=False,
            rates={"cut before the receipt": 0.15, "message dropped": 0.3},
        ),
    ),
    "Redis goes back under a living owner": Case(
        "Redis goes back to an older state, in which the owner's lease still stands: what was put "
        "afterwards had numbers that the owner took for sent, and was never read, or was believed "
        "to be deduplicated.",
        Focus(restored=True, owners_survive=True),
        seeds=150,
    ),
    "a lane whose announcement Redis forgot": Case(
        "Redis went back to before a lane was announced, and then ran a put whose caller was gone, "
        "or waited no longer: the lane was in no list, and its message waited for the next put.",
        Focus(
            restored=True,
            owners_survive=True,
            rates={"command late": 0.2},
            timed=("caller dies",),
        ),
        seeds=150,
    ),
    "one error, and a lane that is handed over": Case(
        "An error of one message, those behind it stored, and the owner gave the lane away before "
        "it had begun a new generation: the next one took the refused message for stored.",
        Focus(
            effectively_once=True,
            rates={"error receipt, transient": 0.25, "command refused": 0.6},
            timed=("stop",) * 4,
        ),
        seeds=300,
    ),
    "an unreadable message that was stored before": Case(
        "Pulsar could not read some frame, and did not say which; a message that had been stored "
        "was sent again, alone, and met the same error: it was called refused.",
        Focus(
            effectively_once=False,
            rates={"message unreadable": 0.05, "error receipt, no context": 0.2},
        ),
        seeds=200,
    ),
}
