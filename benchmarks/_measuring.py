"""One store of one size, beside its raw client, in this process: what `benchmarks.stores --one` prints."""

from __future__ import annotations

import datetime
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._deployments import OURS, RAW, deployed
from benchmarks._systems import K, System
from benchmarks._texts import BATCH, Texts, condition
from mlr_rag.stores import Vector

RUN = 20  # searches of one system before the other's turn, as a program makes them
PATIENCE = 60.0  # seconds of searching; what is slow is searched for less often
_ROUNDS, _OPENINGS, _FIRST = 10, 3, 4
_SMALL, _REFILLS = 10_000, 2
_MIB = 2**20


class Turns:
    """The systems taking turns, and what each turn cost: seconds, and bytes of memory that stay."""

    def __init__(self, systems: dict[str, System]) -> None:
        self.systems, self.number = systems, 0
        self.gained = dict.fromkeys(systems, 0)

    def take(self, do: Callable[[System], Any]) -> tuple[dict[str, float], dict[str, Any]]:
        """Seconds and results; another one comes first each time."""
        names = list(self.systems)
        self.number += 1
        seconds, results = {}, {}
        for name in names[self.number % len(names) :] + names[: self.number % len(names)]:
            system = self.systems[name]
            before, started = system.memory(), time.perf_counter()
            results[name] = do(system)
            seconds[name] = time.perf_counter() - started
            self.gained[name] += system.memory() - before
        return seconds, results


def measure(name: str, size: int, queries: int, seed: int) -> dict[str, Any]:
    """Everything about one store and size, as JSON."""
    texts = Texts.make(size, queries, seed)
    row: dict[str, Any] = {
        "store": name,
        "size": size,
        "date": str(datetime.datetime.now(datetime.timezone.utc).date()),
        "load": round(os.getloadavg()[0], 1),
    }
    _warm_up(name, queries, seed)
    again = [_fill_only(name, texts) for _ in range(_REFILLS if size < _SMALL else 0)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, deployed(name, Path(scratch)) as systems:
        turns = Turns(systems)
        turns.take(lambda system: system.open())
        row |= _fill(turns, texts)
        if RAW in systems:
            row["ingest_over_raw"] += [ratio for ratios in again for ratio in ratios]
        row |= {"index_s": turns.take(lambda system: system.index(size))[0]}
        row |= _search(turns, texts, filtered=False) | _search(turns, texts, filtered=True)
        row |= {"memory_mib": {each: gained / _MIB for each, gained in turns.gained.items()}}
        if all(system.folder for system in systems.values()):
            row |= {"open_ms": _open(turns, texts)}
        for system in systems.values():
            system.close()
        row |= {"disk_mib": {each: system.disk() / _MIB for each, system in systems.items() if system.folder}}
    return row


def _warm_up(name: str, queries: int, seed: int) -> None:
    """A little of everything, so that nobody pays for what is loaded once."""
    texts = Texts.make(BATCH, queries, seed)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, deployed(name, Path(scratch)) as systems:
        for system in systems.values():
            system.open()
            for batch in texts.batches():
                system.add(system.prepare(batch))
            for filtered in (False, True):
                system.search(texts.queries[0], filtered)
            system.close()


def _fill_only(name: str, texts: Texts) -> list[float]:
    """The ratios of another filling: a small one has too few batches for a median."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, deployed(name, Path(scratch)) as systems:
        turns = Turns(systems)
        turns.take(lambda system: system.open())
        ratios: list[float] = _fill(turns, texts).get("ingest_over_raw", [])
        turns.take(lambda system: system.close())
        return ratios


def _fill(turns: Turns, texts: Texts) -> dict[str, Any]:
    spent: dict[str, list[float]] = {name: [] for name in turns.systems}
    for batch in texts.batches():
        prepared = {id(system): system.prepare(batch) for system in turns.systems.values()}

        def add(system: System, prepared: dict[int, Any] = prepared) -> None:
            system.add(prepared[id(system)])

        for name, seconds in turns.take(add)[0].items():
            spent[name].append(seconds)
    size, parts = len(texts.documents), {name: _parts(seconds) for name, seconds in spent.items()}
    first = statistics.median(spent[OURS][:_FIRST]) / min(BATCH, size)
    measured: dict[str, Any] = {
        "ingest_ms": {name: 1000 * sum(seconds) / size for name, seconds in spent.items()},
        "ingest_over_first": sum(spent[OURS]) / size / first,
        "last_part_over_first": parts[OURS][-1] / parts[OURS][0],
    }
    if RAW in spent:
        measured["ingest_over_raw"] = [ours / raw for ours, raw in zip(parts[OURS], parts[RAW], strict=True)]
    return measured


def _parts(seconds: list[float]) -> list[float]:
    """The mean of each tenth of some batches."""
    return [float(part.mean()) for part in np.array_split(seconds, min(_ROUNDS, len(seconds)))]


def _search(turns: Turns, texts: Texts, filtered: bool) -> dict[str, Any]:
    kind = "filtered" if filtered else "query"
    warm = time.perf_counter() + PATIENCE / 4  # what is loaded lazily, and the pages of files in memory
    for row in texts.others:
        turns.take(lambda system, row=row: system.search(row, filtered))
        if time.perf_counter() > warm:
            break
    spent: dict[str, list[float]] = {name: [] for name in turns.systems}
    found: dict[str, list[list[str]]] = {name: [] for name in turns.systems}
    until = time.perf_counter() + PATIENCE
    for start in range(0, len(texts.queries), RUN):
        part = texts.queries[start : start + RUN]

        def search(system: System, part: Vector = part) -> list[tuple[float, list[str]]]:
            return [_timed(system, row, filtered) for row in part]

        for name, timed in turns.take(search)[1].items():
            spent[name] += [seconds for seconds, _ in timed]
            found[name] += [ids for _, ids in timed]
        if time.perf_counter() > until:
            break
    wanted = condition() if filtered else None
    return {
        f"{kind}_ms": {
            name: [float(1000 * each) for each in np.percentile(seconds, [50, 95])] for name, seconds in spent.items()
        },
        f"{kind}_recall": {name: texts.recall(ids, K, wanted) for name, ids in found.items()},
        f"{kind}_searches": len(found[OURS]),
    }


def _timed(system: System, vector: Any, filtered: bool) -> tuple[float, list[str]]:
    started = time.perf_counter()
    ids = system.search(vector, filtered)
    return time.perf_counter() - started, ids


def _open(turns: Turns, texts: Texts) -> dict[str, float]:
    """Milliseconds from opening to the first answer; closed before and open afterwards."""

    def opened(system: System) -> float:
        system.close()
        started = time.perf_counter()
        system.open()
        system.search(texts.queries[0], filtered=False)
        return 1000 * (time.perf_counter() - started)

    times = [turns.take(opened)[1] for _ in range(_OPENINGS)]
    return {name: statistics.median(each[name] for each in times) for name in turns.systems}
