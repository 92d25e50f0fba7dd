"""What fits into a budget: sizes of everything, from the speed that was measured."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.speed import Speed

BATCH = 32  # lists in a step
EPOCHS = 4.0  # more passes over the same lists bring next to nothing
LENGTHS, _PASSES = (8, 5, 3, 2), 2  # passages in a list: as many as leave time for two passes over all lists
_MADE_EPOCHS = 2.0  # where a teacher grades generated queries: rather more of them
_BELIEVED, _ENOUGH = 0.5, 1000  # of these, about; lists, beyond which longer ones are better than more
ADAPTER_EPOCHS = 10
_LEAST_STEPS = 10
SEARCH = 0.3  # of what is left when the speed is known: for encoding the documents among which candidates are sought
_READ = 0.5  # for that and for a teacher to read them: candidates among those that it has read cost nothing more
DOCTOR = 0.1
_DEV, _TEST, _SCORE, _ADAPTER, _TRIAL = 0.02, 0.2, 0.3, 0.1, 0.1  # of what is left after these two
_ALONE = 0.5  # for an adapter that is all that is trained
_EVALUATIONS, _MIXTURES = 4, 4
_PROBE = 660  # queries and documents of the general probe, all of them short
_SAFETY = 0.97  # of what is left: a machine has its moods


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        dev_documents: Documents that are encoded whenever the dev queries are asked.
        test_documents: Documents that the test queries search.
        scored: Train queries whose candidates the teacher scores.
        lists: Training lists.
        length: Passages in a list.
        epochs: Passes over the lists, at the most.
        evaluations: How often the dev queries are asked in the run.
        adapter_epochs: Passes over the lists for a query adapter; 0 where there is no time for one.
        beside: Seconds that all of it should take but scores and training.
        seconds: How long all of it should take.
        left_out: What there was no time for, a sentence each.
    """

    dev_documents: int
    test_documents: int
    scored: int
    lists: int
    length: int
    epochs: float
    evaluations: int
    adapter_epochs: int
    beside: float
    seconds: float
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """How long is trained.

    Attributes:
        trial_steps: Steps of each candidate objective's trial; 0 where there is one candidate.
        steps: Steps of the run.
        left_out: What there was no time for, a sentence each.
    """

    trial_steps: int
    steps: int
    left_out: tuple[str, ...]


def room(
    left: float,
    speed: Speed,
    documents: int,
    held: int,
    lists: int,
    candidates: int,
    reading: float = 0.0,
    spent: float = 0.0,
) -> int:
    """How many documents there is time to search for candidates.

    Args:
        left: Seconds; infinite without a budget.
        speed: Of the model on this machine.
        documents: In the corpus.
        held: Of them, those that dev and test queries need.
        lists: That could be made.
        candidates: Objectives to be tried.
        reading: Seconds that a teacher takes for each of the documents.
        spent: Seconds of the budget that are over.

    Raises:
        InvalidInputError: there is no time for the least of what has to be done.
    """
    adapters = 0 if candidates else 1
    least = make_plan(0, speed, documents, documents, 0, held, lists, candidates, adapters).seconds
    least += held / speed.encode
    if left < least:
        raise InvalidInputError(
            "the budget is too small for this corpus, model and machine",
            found=f"{left:.0f} seconds left when the speed was known",
            expected=f"a budget of {math.ceil(spent + least / _SAFETY)} seconds or more, with {speed.encode:.0f} "
            "documents encoded in a second",
            remedy="Give it more time. The speed is measured anew, in case the machine was busy; the rest is kept.",
        )
    searched, read = left * SEARCH * speed.encode, left * _READ / (1 / speed.encode + reading)
    return min(documents, _at_least(held, min(searched, read)))


def make_plan(
    left: float,
    speed: Speed,
    documents: int,
    sought: int,
    asked: int,
    held: int,
    lists: int,
    candidates: int,
    adapters: int,
    scoring: Callable[[int], float] | None = None,
    alone: bool = False,
    generated: bool = False,
) -> Plan:
    """Divide the time that is left.

    Args:
        left: Seconds; infinite without a budget.
        speed: Of the model on this machine.
        documents: In the corpus.
        sought: Of them, those among which candidates were sought.
        asked: Of these, those that dev queries ask for at the least.
        held: Of these, those that dev and test queries need.
        lists: That could be made.
        candidates: Objectives to be tried; 0 where only a query adapter is to be trained.
        adapters: Query adapters to be trained.
        scoring: Seconds in which a teacher scores the candidates of so many lists; None without one.
        alone: Whether nothing else is learned from than these scores.
        generated: Whether the teacher leaves out queries that it does not believe in.
    """
    left_out, left = [], left * _SAFETY
    if sought < documents:
        left_out.append(f"Candidates are sought among {sought:,} of {documents:,} documents.")
    dev = max(asked, min(sought, 5000, _at_least(200, left * _DEV * speed.encode)))
    test = max(held, min(sought, _at_least(500, left * _TEST * speed.encode)))
    if test < documents:
        left_out.append(f"The test queries search {test:,} of {documents:,} documents.")
    part, least = (_ADAPTER, 0) if candidates else (_ALONE, 1)
    against = sought + (test if adapters > 1 else 0)  # the base's adapter, and the tuned model's
    an_epoch = lists * against / speed.products
    adapting = min(ADAPTER_EPOCHS, _at_least(least, left * part / an_epoch)) if adapters else 0
    if adapters and adapting < ADAPTER_EPOCHS:
        left_out.append(f"A query adapter passes {adapting} times over the lists, and not {ADAPTER_EPOCHS}.")
    tries = candidates if candidates > 1 else 0
    evaluations, mixtures = (_EVALUATIONS, _MIXTURES) if candidates else (0, 0)
    adapted = adapters if adapting else 0
    measured = 1 + mixtures + adapted  # models, beside those of the runs
    encoded = (evaluations + tries + measured) * dev + test
    beside = encoded / speed.encode + (measured * _PROBE + adapted * lists) / speed.ask + adapting * an_epoch
    scored, spent, learned = 0, beside, lists
    lengths: tuple[int, ...] = LENGTHS
    if scoring is not None:
        scored = _scored(scoring, lists, left * _SCORE)
        if alone:
            believed = _BELIEVED if generated else 1.0
            scored, length = _graded(scoring, lists, left - beside, believed, speed)
            learned, lengths = max(1, int(scored * believed)), (length,)
        if scored < lists:
            left_out.append(f"The teacher scores the candidates of {scored:,} of {lists:,} queries.")
        spent += scoring(scored)
    rest = max(0.0, left - spent)
    passages = rest * (1 - tries * _TRIAL) * speed.train
    length = next((length for length in lengths if passages >= _PASSES * learned * length), lengths[-1])
    epochs = _MADE_EPOCHS if alone and generated else EPOCHS
    a_step = BATCH * length / speed.train
    schedule = _schedule(rest, learned, epochs, candidates, a_step)
    return Plan(
        dev_documents=dev,
        test_documents=test,
        scored=scored,
        lists=learned,
        length=length,
        epochs=epochs,
        evaluations=evaluations,
        adapter_epochs=adapting,
        beside=round(beside, 1),
        seconds=round(spent + (schedule.steps + tries * schedule.trial_steps) * a_step, 1),
        left_out=tuple(left_out),
    )


def make_schedule(left: float, plan: Plan, lists: int, candidates: int, a_step: float) -> Schedule:
    """How long there is time to train.

    Args:
        left: Seconds; infinite without a budget.
        plan: What else they are for.
        lists: To be trained on.
        candidates: Objectives to be tried, one or more.
        a_step: Seconds of a step.
    """
    return _schedule(max(0.0, left * _SAFETY - plan.beside), lists, plan.epochs, candidates, a_step)


def _schedule(rest: float, lists: int, epochs: float, candidates: int, a_step: float) -> Schedule:
    if not candidates:
        return Schedule(0, 0, ())
    tries, affordable = candidates if candidates > 1 else 0, rest / a_step
    wanted, left_out = math.ceil(epochs * lists / BATCH), tuple[str, ...]()
    trial_steps = _at_least(_LEAST_STEPS, _TRIAL * affordable) if tries else 0
    steps = min(wanted, _at_least(_LEAST_STEPS, affordable - tries * trial_steps))
    if steps < wanted:
        passes = steps * BATCH / lists
        left_out = (f"Training passes {passes:.2g} times over {lists:,} lists, and not {epochs:g}.",)
    return Schedule(min(trial_steps, math.ceil(steps / 3)), steps, left_out)


def _graded(scoring: Callable[[int], float], lists: int, most: float, believed: float, speed: Speed) -> tuple[int, int]:
    """How many lists a teacher scores with time for a pass over them, and of what length: rather short than few."""
    for length in LENGTHS:
        scored = _scored(scoring, lists, most, believed * length / speed.train)
        if scored == lists or scored * believed >= _ENOUGH:
            break
    return scored, length


def _scored(scoring: Callable[[int], float], lists: int, most: float, a_list: float = 0.0) -> int:
    """How many lists' candidates a teacher scores in `most` seconds, of which each list takes some beside."""
    return max(1, bisect(range(lists + 1), most, key=lambda count: scoring(count) + count * a_list) - 1)


def _at_least(least: int, number: float) -> int:
    return least if number < least else 10**9 if math.isinf(number) else int(number)
