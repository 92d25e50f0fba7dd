"""Ingestion, re-ingestion and search, against langchain-qdrant `path=` and langchain-chroma on the same weights.

python -m benchmarks.ingest [--collection scifact.zip]
"""

from __future__ import annotations

import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Row, missing, parser, passages, quiet, report, say, spread
from mlr_rag import Document, MLRModel, Retriever
from mlr_rag.model.names import DEFAULT_MODEL, resolve
from mlr_rag.stores import open_store

PEERS = ("langchain-qdrant", "langchain-chroma", "langchain-huggingface", "qdrant-client", "chromadb")
OURS, QDRANT, CHROMA = "mlr_rag", "langchain-qdrant", "langchain-chroma"
K = 10
RUN = 20


@dataclass(frozen=True)
class System:
    """What is measured: adding documents, and searching by a vector in the form that the system takes."""

    add: Callable[[Sequence[Document]], Any]
    search: Callable[[Any], list[str]]
    form: Callable[[Any], Any]
    close: Callable[[], Any]


@dataclass
class Measured:
    """Seconds of each system: making its collection and each round, all again, each search; and its exact searches.

    `searches` are in runs of `RUN`, as a program makes them; in `turns` another system's search goes before each one
    and leaves the processor's caches cold.
    """

    rounds: dict[str, list[float]] = field(default_factory=dict)
    again: dict[str, list[float]] = field(default_factory=dict)
    searches: dict[str, list[float]] = field(default_factory=dict)
    turns: dict[str, list[float]] = field(default_factory=dict)
    exact: dict[str, int] = field(default_factory=dict)


def open_ours(folder: Path, model: MLRModel) -> System:
    """mlr_rag's default: the embedded edge store."""
    kb = Retriever.open(folder, model)
    return System(
        add=lambda documents: kb.add(documents, show_progress=False),
        search=lambda vector: [match.record.document.id for match in kb.store.query(vector, K)],
        form=lambda vector: vector,
        close=kb.close,
    )


def open_qdrant(folder: Path, embeddings: Any) -> System:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, VectorParams

    client = QdrantClient(path=str(folder))
    client.create_collection("passages", VectorParams(size=384, distance=Distance.COSINE))
    return peer(QdrantVectorStore(client, "passages", embeddings), client.close)


def open_chroma(folder: Path, embeddings: Any) -> System:
    from langchain_chroma import Chroma

    cosine: Any = {"hnsw": {"space": "cosine"}}
    store = Chroma("passages", embeddings, persist_directory=str(folder), collection_configuration=cosine)
    return peer(store, lambda: None)


def peer(store: Any, close: Callable[[], Any]) -> System:
    """A LangChain vector store, used as its documentation does; ids are given, so that a second run replaces."""
    from langchain_core.documents import Document as LangChainDocument

    def add(documents: Sequence[Document]) -> None:
        store.add_documents(
            [LangChainDocument(page_content=each.text, metadata={"id": each.id}) for each in documents],
            ids=[str(uuid.uuid5(uuid.NAMESPACE_URL, each.id)) for each in documents],
        )

    return System(
        add=add,
        search=lambda row: [found.metadata["id"] for found in store.similarity_search_by_vector(row, k=K)],
        form=lambda vector: vector.tolist(),
        close=close,
    )


def timed(call: Callable[..., Any], *given: Any) -> float:
    started = time.perf_counter()
    call(*given)
    return time.perf_counter() - started


def rotated(names: list[str], by: int) -> list[str]:
    return names[by % len(names) :] + names[: by % len(names)]


def measure(makers: dict[str, Callable[[], System]], ours: str, parts: list[list[Document]], queries: Any) -> Measured:
    """Everything, in one run. `ours` is the URL of our collection, to read back its vectors."""
    found, systems, names = Measured(), {}, list(makers)
    for name, make in makers.items():
        started = time.perf_counter()
        systems[name] = make()
        found.rounds[name] = [time.perf_counter() - started]
    for number, part in enumerate(parts):
        for name in rotated(names, number):
            found.rounds[name].append(timed(systems[name].add, part))
        say(f"round {number + 1}:", ", ".join(f"{name} {times[-1]:.2f} s" for name, times in found.rounds.items()))
    everything = [document for part in parts for document in part]
    for name in (OURS, QDRANT, OURS, CHROMA, OURS):
        todo = everything if name == OURS else parts[0]
        seconds = timed(systems[name].add, todo) * len(everything) / len(todo)
        found.again.setdefault(name, []).append(seconds)
        say(f"again: {name} {seconds:.2f} s")
    forms = {name: [system.form(query) for query in queries] for name, system in systems.items()}
    found.searches, found.turns = {name: [] for name in names}, {name: [] for name in names}
    for name in names:
        systems[name].search(forms[name][0])  # the first one loads what is loaded lazily
    for run, times in ((RUN, found.searches), (1, found.turns)):
        for turn, start in enumerate(range(0, len(queries), run)):
            for name in rotated(names, turn):
                times[name] += [timed(systems[name].search, form) for form in forms[name][start : start + run]]
    with closing(open_store(ours)) as store:
        records = [record for batch in store.scan(with_vectors=True) for record in batch]
    ids, vectors = [record.document.id for record in records], np.stack([record.vector for record in records])  # type: ignore[misc]
    for name, system in systems.items():
        found.exact[name] = sum(exact(system, query, ids, vectors) for query in queries)
        system.close()
    return found


def exact(system: System, query: Any, ids: list[str], vectors: Any) -> bool:
    """Whether it gives K documents none of which scores below the exact Kth; those that tie may swap."""
    scores = dict(zip(ids, vectors @ query, strict=True))
    least, found = sorted(scores.values())[-K] - 1e-5, set(system.search(system.form(query)))
    return len(found) == K and all(scores[id] >= least for id in found)


def table(found: Measured, queries: int) -> list[Row]:
    """The figures and their targets."""
    rows, mine = [], found.rounds[OURS]
    for name, target in ((CHROMA, 1.15), (QDRANT, 1.4)):
        theirs = found.rounds[name]
        ratios = [their / my for their, my in zip(theirs[1:], mine[1:], strict=True)]
        total = sum(theirs) / sum(mine)
        figure = f"{spread(ratios)}; all together {total:.2f} ({sum(mine):.0f} s, {sum(theirs):.0f} s)"
        met = min(statistics.median(ratios), total) >= target
        rows.append(Row(f"ingest: times {name}'s throughput", f">= {target}", figure, met))
    others = ", ".join(f"{name} {found.exact[name]}" for name in (QDRANT, CHROMA))
    figure = f"{found.exact[OURS]} of {queries} ({others})"
    rows.append(Row("top 10 equal to exact search over our vectors", "all", figure, found.exact[OURS] == queries))
    for times, how in ((found.searches, f"in runs of {RUN}"), (found.turns, "taking turns, caches cold")):
        for name in (QDRANT, CHROMA):
            my, their = (1e3 * statistics.median(times[each]) for each in (OURS, name))
            figure = f"{their / my:.1f} (p50 {my:.2f} ms, {their:.2f} ms)"
            judged = name == QDRANT and times is found.searches
            reached = their / my >= 5 if judged else None
            rows.append(Row(f"search only, {how}: times faster than {name}", ">= 5" if judged else "", figure, reached))
    for name in (QDRANT, CHROMA):
        my, their = (statistics.median(found.again[each]) for each in (OURS, name))
        figure = f"{their / my:,.0f} ({my:.3f} s, {their:.1f} s)"
        rows.append(Row(f"the same again: times faster than {name}", ">= 50", figure, their / my >= 50))
    return rows


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--passages", type=int, default=5000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--collection", type=Path, help="a BEIR zip, in place of the standard library's docstrings")
    args = options.parse_args()
    if absent := missing(PEERS):
        raise SystemExit(f"not installed: {', '.join(absent)}; pip install -c constraints.txt -e '.[dev]'")
    import torch
    from langchain_huggingface import HuggingFaceEmbeddings

    quiet()
    chosen = passages(args.passages + args.queries, args.seed, args.collection)
    held, documents = [each.text for each in chosen[: args.queries]], chosen[args.queries :]
    model = MLRModel.from_pretrained(DEFAULT_MODEL)
    device = {"device": str(model.device)}
    embeddings = HuggingFaceEmbeddings(model_name=str(resolve(DEFAULT_MODEL)), model_kwargs=device)
    queries = model.encode_query(held)
    cosine = float((queries * np.asarray(embeddings.embed_documents(held))).sum(1).min())
    cut = model.tokenizer([each.text for each in documents], truncation=True, max_length=model.max_seq_length)
    tokens = statistics.mean(map(len, cut["input_ids"]))
    say(f"{len(documents):,} passages, {tokens:.0f} tokens on average; both encoders agree to {cosine:.6f}")
    parts = [documents[start :: args.rounds] for start in range(args.rounds)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        makers: dict[str, Callable[[], System]] = {
            OURS: lambda: open_ours(Path(scratch, "ours"), model),
            QDRANT: lambda: open_qdrant(Path(scratch, "qdrant"), embeddings),
            CHROMA: lambda: open_chroma(Path(scratch, "chroma"), embeddings),
        }
        found = measure(makers, f"edge:{scratch}/ours", parts, queries)
    source = args.collection.stem if args.collection else "docstrings of Python's standard library"
    report(
        "ingest",
        "Ingestion, re-ingestion and search",
        args,
        table(found, args.queries),
        f"{len(documents):,} passages ({source}; {tokens:.0f} tokens on average, {model.max_seq_length} at the most) "
        f"in {args.rounds} rounds; in each round every system adds the same passages to its own collection on disk, in "
        f'rotating order. "All together" includes making the collection. All run {DEFAULT_MODEL} from the same files '
        f"in one process with {torch.get_num_threads()} torch threads, loaded beforehand; their vectors agree to a "
        f"cosine of {cosine:.6f}. Peers: HuggingFaceEmbeddings, `QdrantClient(path=)` and Chroma with "
        f"`persist_directory`, cosine, default settings. Search: the vectors of {args.queries} passages held back, top "
        f"{K}; one system searches for {RUN} of them, then the next, "
        f"and once more with a turn after every search. Equal: none of the {K} scores below the exact {K}th, to 1e-5. "
        "The same again: a second `add` with the same ids; the peers encode everything again, so theirs is measured on "
        f"{len(parts[0]):,} passages and multiplied up.",
        "a GPU, servers, filtered search, more than one process, larger collections.",
        ("torch", "sentence-transformers", "qdrant-edge-py", *PEERS),
    )


if __name__ == "__main__":
    main()
