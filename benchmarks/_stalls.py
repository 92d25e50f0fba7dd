"""Many questions at once in one event loop: what they answer, how long they take, and how long the loop is kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from benchmarks._doors import Door, seen

_BEAT = 0.001  # seconds
_T = TypeVar("_T")


@dataclass
class Together:
    """What asking everything at once gave.

    Attributes:
        asked, same: Questions, and how many were answered as when each is asked alone.
        late: How many seconds later than asked the heartbeat woke up, each time.
        alone, together: Seconds of a round, in turn and at once.
    """

    asked: int = 0
    same: int = 0
    late: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)

    def count(self, expected: Sequence[Any], answers: Sequence[Any]) -> None:
        """Compare some answers."""
        self.asked += len(expected)
        self.same += sum(one == other for one, other in zip(expected, answers, strict=True))

    def stall(self, percent: float = 99) -> float:
        """A percentile of `late`, in milliseconds."""
        return float(1e3 * np.percentile(self.late, percent))


async def idle(seconds: float) -> Together:
    """A loop that has nothing to do but the heartbeat."""
    found = Together()
    await _with_heartbeat(lambda: asyncio.sleep(seconds), found)
    return found


async def at_once(doors: Mapping[str, Door], queries: Sequence[str], rounds: int) -> dict[str, Together]:
    """Each door in turn, `rounds` times: every query alone, in a thread, and then all at once."""
    found = {name: Together() for name in doors}
    names = list(doors)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            door, result = doors[name], found[name]
            started = time.perf_counter()
            expected = await asyncio.to_thread(_alone, door, queries)
            result.alone.append(time.perf_counter() - started)
            started = time.perf_counter()
            answers = await _with_heartbeat(lambda door=door: _gathered(door, queries), result)
            result.together.append(time.perf_counter() - started)
            result.count(expected, [seen(answer) for answer in answers])
    return found


async def beside_threads(doors: Mapping[str, Door], queries: Sequence[str], threads: int) -> dict[str, Together]:
    """All at once, while each of some threads asks the same through the blocking interface."""
    found = {name: Together() for name in doors}
    for name, door in doors.items():
        expected = await asyncio.to_thread(_alone, door, queries)
        blocking = [asyncio.create_task(asyncio.to_thread(_alone, door, queries)) for _ in range(threads)]
        answers = await _with_heartbeat(lambda door=door: _gathered(door, queries), found[name])
        for each in [[seen(answer) for answer in answers], *await asyncio.gather(*blocking)]:
            found[name].count(expected, each)
    return found


def _alone(door: Door, queries: Sequence[str]) -> list[Any]:
    return [seen(door.ask(query)) for query in queries]


async def _gathered(door: Door, queries: Sequence[str]) -> list[Any]:
    return list(await asyncio.gather(*(door.aask(query) for query in queries)))


async def _with_heartbeat(work: Callable[[], Awaitable[_T]], found: Together) -> _T:
    stop = asyncio.Event()
    beating = asyncio.create_task(_beat(found.late, stop))
    await asyncio.sleep(0)
    result = await work()
    stop.set()
    await beating  # with what kept it at the end
    return result


async def _beat(late: list[float], stop: asyncio.Event) -> None:
    while not stop.is_set():
        asked = time.perf_counter() + _BEAT
        await asyncio.sleep(_BEAT)
        late.append(time.perf_counter() - asked)
