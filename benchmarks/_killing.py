"""The trials of benchmarks.kill: of the process that indexes, and of the server that it indexes through."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks._common import say
from benchmarks._deployments import Server, servers
from mlr_rag.testing.kill import check, documents, read_log, run, start, trial, wait_for

_PAUSE = 0.02  # seconds that encoding a batch of 64 takes
_PATIENCE = 120.0
_TRIES = 3  # as some kills come too late


@dataclass(frozen=True)
class Outcome:
    """What a kill and a second run left.

    Attributes:
        acknowledged: Documents, before the kill.
        again: How many of them were encoded again.
        faults: What must not be.
        error: The error of ours that the killed server's client ended with.
    """

    acknowledged: int
    again: int
    faults: list[str]
    error: str = ""


def client_trials(
    url: Callable[[Path], str], scratch: Path, wanted: int, moments: random.Random, count: int
) -> list[Outcome]:
    """Trials of a store in a folder whose kill came in time."""
    before = scratch / "version-0"
    making, filling = _undisturbed(url(before), scratch / "filling.log", count)
    shutil.copytree(before, scratch / "version-1")
    _, replacing = _undisturbed(url(scratch / "version-1"), scratch / "replacing.log", count, version=1)
    say(f"{url(before)}: making {making:.2f} s, filling {filling:.2f} s, replacing a third {replacing:.2f} s")
    done: list[Outcome] = []
    for number in range(_TRIES * wanted):
        if len(done) == wanted:
            break
        kind = len(done)
        folder, version = scratch / f"trial-{number}", 1 if kind % 5 == 1 else 0
        if version:
            shutil.copytree(before, folder)
        step, longest = ("open", making) if kind % 10 == 0 else ("ingest", replacing if version else filling)
        kill = step, moments.uniform(0, longest)
        outcome = _client_trial(url(folder), scratch / f"logs-{number}", count, version, kill)
        if outcome is not None:
            done.append(outcome)
            _tell(len(done), wanted, f"{kill[1]:.3f} s after {kill[0]!r}", outcome)
        shutil.rmtree(folder, ignore_errors=True)  # killed very early, it made none
    return done


def _client_trial(url: str, logs: Path, count: int, version: int, kill: tuple[str, float]) -> Outcome | None:
    try:
        each = trial(url, logs, count, version, _PAUSE, kill)
    except RuntimeError as problem:  # the second run did not come to its end
        return Outcome(0, 0, [str(problem)])
    if not each.killed.killed:
        return None
    faults = each.faults_after_kill + each.faults_after_rerun
    return Outcome(len(each.killed.acknowledged), len(each.encoded_again), faults)


def _undisturbed(url: str, log: Path, count: int, version: int = 0) -> tuple[float, float]:
    """Seconds from opening the collection to the first document, and from there to the last, if nobody is killed."""
    process, times = start(url, log, count, version, _PAUSE), []
    try:
        for step in ("open", "ingest", "done"):
            wait_for(log, step, process)
            times.append(time.perf_counter())
        process.wait(_PATIENCE)
    finally:
        process.kill()
        process.wait()
    return times[1] - times[0], times[2] - times[1]


def server_trials(scratch: Path, wanted: int, moments: random.Random, count: int) -> list[Outcome]:
    """Trials of a Chroma server whose kill came in time."""
    with servers(scratch / "server") as (server,):
        _, filling = _undisturbed(server.collection("version-0"), scratch / "filling.log", count)
        say(f"{server.collection()}: filling {filling:.2f} s")
        done: list[Outcome] = []
        for number in range(_TRIES * wanted):
            if len(done) == wanted:
                break
            after = moments.uniform(0, filling)
            outcome = _server_trial(server, f"trial-{number}", scratch / f"logs-{number}", count, after)
            if outcome is not None:
                done.append(outcome)
                _tell(len(done), wanted, f"{after:.3f} s after 'ingest', {outcome.error}", outcome)
    return done


def _server_trial(server: Server, name: str, logs: Path, count: int, after: float) -> Outcome | None:
    url, log, expected = server.collection(name), logs / "killed.log", documents(count)
    logs.mkdir()
    process = start(url, log, count, pause=_PAUSE)
    try:
        wait_for(log, "ingest", process)
        time.sleep(after)
        server.kill()
        process.wait(_PATIENCE)
    finally:
        process.kill()
        process.wait()
    server.start()
    steps = read_log(log)
    if "done" in [step for step, _ in steps]:
        return None
    acknowledged = frozenset(id for step, ids in steps if step == "ack" for id in ids)
    error = "".join(name for step, names in steps if step == "error" for name in names)
    faults = check(url, expected, [], acknowledged)
    try:
        again = run(url, logs / "again.log", count, pause=_PAUSE)
    except RuntimeError as problem:  # it did not come to its end
        return Outcome(len(acknowledged), 0, [*faults, str(problem)], error)
    faults += check(url, expected, [], frozenset(document.id for document in expected))
    return Outcome(len(acknowledged), len(acknowledged & again.encoded), faults, error)


def _tell(number: int, wanted: int, moment: str, outcome: Outcome) -> None:
    state = f"{outcome.acknowledged:,} acknowledged, {outcome.again} encoded again, {len(outcome.faults)} faults"
    say(f"{number}/{wanted}: killed {moment}, {state}")
