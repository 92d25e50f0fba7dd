"""Kill -9 at random moments of a migration to another model, with a writer and two readers at work.

python -m benchmarks.migration [--stores edge qdrant-path] [--kills 20]
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks._common import Row, missing, parser, report, say
from benchmarks._deployments import FOLDERS, servers
from mlr_rag.retriever import Retriever
from mlr_rag.stores import open_store
from mlr_rag.testing.migrate import NEW, OLD, Ids, attempt, check, check_answers, fill

SERVER = "chroma-server"
DOCUMENTS = {"edge": 1500, "qdrant-path": 500, "chroma-persistent": 1500, SERVER: 1500}
_PAUSE = 0.04  # seconds that encoding a batch of 64 by the new model takes
_BEFORE, _DURING, _AFTER = "before the new generation was made", "while it was filled", "after the switch"


@dataclass
class Found:
    """What the migrations of a store met and left."""

    faults: list[str] = field(default_factory=list)
    phases: Counter[str] = field(default_factory=Counter)  # in which the kills came
    compared: int = 0  # documents, each time one was looked at
    migrations: int = 0


def migrate(url: str, logs: Path, count: int, kills: int, moments: Callable[[], float], found: Found) -> None:
    """Fill a collection, move it with up to so many kills, let it finish, and roll back."""
    logs.mkdir()
    fill(url, count)
    ids = Ids({f"item-{number}" for number in range(count)}, set())
    while True:
        after = moments() if found.phases.total() < kills else None
        each = attempt(url, logs / f"{found.phases.total()}.log", _PAUSE, ids, after)
        found.faults += each.faults
        found.compared += len(ids.present)
        if each.finished or after is None:
            break
        phase = _phase(url)
        found.phases[phase] += 1
        say(f"{found.phases.total()}/{kills}: killed after {after:.3f} s, {phase}, {len(each.faults)} faults")
    found.faults += check_answers(url, NEW)
    with Retriever(NEW, open_store(url)) as kb:
        kb.rollback(OLD)
    found.faults += check(url, ids) + check_answers(url, OLD)
    found.compared += len(ids.present)
    found.migrations += 1


def _phase(url: str) -> str:
    with closing(open_store(url)) as store:
        if store.current() != 1:
            return _AFTER
        return _DURING if len(store.generations()) > 1 else _BEFORE


def _longest(url: str, logs: Path, count: int) -> float:
    """Seconds that a migration takes if nobody is killed."""
    logs.mkdir()
    fill(url, count)
    ids = Ids({f"item-{number}" for number in range(count)}, set())
    return attempt(url, logs / "log", _PAUSE, ids, None).seconds


def trials(url: Callable[[str], str], logs: Path, count: int, kills: int, moments: random.Random) -> Found:
    """Migrations until so many kills came in time."""
    found, longest = Found(), _longest(url("longest"), logs / "logs-longest", count)
    say(f"{url('longest')}: {longest:.2f} s if nobody is killed")
    while found.phases.total() < kills:
        name = f"trial-{found.migrations}"
        migrate(url(name), logs / f"logs-{name}", count, kills, lambda: moments.uniform(0, longest), found)
    return found


@contextmanager
def _places(name: str, scratch: Path) -> Iterator[Callable[[str], str]]:
    """The URL of a collection of a store, by its name."""
    if name == SERVER:
        with servers(scratch / "server") as (server,):
            yield server.collection
    else:
        yield lambda collection: FOLDERS[name](scratch / collection)


def table(name: str, found: Found) -> list[Row]:
    """What the migrations of a store met and left."""
    phases = ", ".join(f"{found.phases[phase]} {phase}" for phase in (_BEFORE, _DURING, _AFTER))
    migrations = f"{found.phases.total()} in {found.migrations} migrations: {phases}"
    return [
        Row(f"{name}: faults", "0", str(len(found.faults)), not found.faults),
        Row(f"{name}: documents compared", "", f"{found.compared:,}"),
        Row(f"{name}: kills", "", migrations),
    ]


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--stores", nargs="+", choices=DOCUMENTS, default=list(DOCUMENTS))
    options.add_argument("--kills", type=int, default=20, help="of each store")
    args = options.parse_args()
    if absent := missing(("qdrant-client", "chromadb")):
        raise SystemExit(f"not installed: {', '.join(absent)}; pip install -c constraints.txt -e '.[dev]'")
    moments, rows = random.Random(args.seed), []
    for name in args.stores:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, _places(name, Path(scratch)) as url:
            found = trials(url, Path(scratch), DOCUMENTS[name], args.kills, moments)
        for fault in found.faults[:20]:
            say(f"{name}: {fault}")
        rows += table(name, found)
    report(
        "migration",
        "kill -9 during a migration",
        args,
        rows,
        f"A process was moving a collection of {', '.join(f'{DOCUMENTS[name]:,} ({name})' for name in args.stores)} "
        "documents to another model, of another dimension, while a thread of it added documents, and deleted every "
        "fourth of them again, and two threads searched; it was killed with SIGKILL at uniformly random moments, and "
        "the same command ran again, until a kill came too late; then the collection was rolled back. Faults: a "
        "search or a write that failed, hits that were not all scored by one of the two models, and, after each kill "
        "and at the end, a vector that is not of the model in the passport, an acknowledged document that is missing, "
        "an acknowledged deletion that is undone, answers that are not those of a new index of the same documents: by "
        "the new model after the migration, by the old one after the rollback. The models are fakes, and the new one "
        "takes a fixed time a batch.",
        "a power failure, a server killed during a migration, writers in other processes, a Qdrant server.",
        ("qdrant-edge-py", "qdrant-client", "chromadb"),
    )
    if any(row.met is False for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
