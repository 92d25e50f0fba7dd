"""LangChain and LlamaIndex over ours: what a door costs, a query from end to end, and 200 at once.

python -m benchmarks.frameworks
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._common import Row, missing, parser, passages, quiet, report, say, spread
from mlr_rag import Document, MLRModel, Retriever
from mlr_rag.model.names import DEFAULT_MODEL, resolve
from mlr_rag.stores import Vector

PEERS = (
    "langchain-core",
    "langchain-qdrant",
    "langchain-huggingface",
    "llama-index-core",
    "qdrant-client",
    "sentence-transformers",
    "torch",
)
STOCK = "HuggingFaceEmbeddings + langchain-qdrant"
_OWN = ", its own nodes"
_OVERHEAD, _FASTER, _STALL = 0.3, 2.0, 5.0  # milliseconds, times, milliseconds
_RUN = 10  # questions through one door, before the next door's turn
_COPIES = 4  # documents of each passage, where there are many
_FEW = 2000
_LENGTH = 500  # characters of a document whose doors are compared
_SHORT = 80  # characters of a question
_THREADS = 2
_FREE = 5  # as many rounds, where nothing is encoded
_PATIENCE = 600.0  # seconds, after which 200 at once have hung


@dataclass(frozen=True)
class Corpus:
    """Passages with their vectors, and questions with theirs."""

    model: MLRModel
    documents: list[Document]
    rows: Vector
    queries: list[str]
    query_rows: Vector

    def known(self, documents: Mapping[str, Vector], checked: bool = False) -> Any:
        """The model, for which these texts and the questions cost nothing."""
        from benchmarks._doors import Known

        return Known(self.model, documents, dict(zip(self.queries, self.query_rows, strict=True)), checked)

    def collection(self, url: str | Path, documents: Sequence[Document], rows: Vector) -> None:
        """Write a collection of documents with these vectors."""
        known = self.known(dict(zip((each.text for each in documents), rows, strict=True)))
        with Retriever.open(url, known) as kb:
            kb.add(documents, show_progress=False)


@dataclass
class Overhead:
    """What a door takes over `Retriever.search` in a collection, and what the framework does alone; milliseconds."""

    over: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)


def rounds_of(doors: Mapping[str, Callable[[str], Any]], queries: Sequence[str]) -> dict[str, list[list[float]]]:
    """Milliseconds of each question of each turn; in every round each door has one, and another one comes first."""
    names = list(doors)
    for name in names:
        for query in queries[:_RUN]:
            doors[name](query)
    spent: dict[str, list[list[float]]] = {name: [] for name in names}
    for number, start in enumerate(range(0, len(queries), _RUN)):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            ask, turn = doors[name], []
            for query in queries[start : start + _RUN]:
                started = time.perf_counter()
                ask(query)
                turn.append(1e3 * (time.perf_counter() - started))
            spent[name].append(turn)
    return spent


def overheads(kb: Retriever, doors: Mapping[str, Any], queries: Sequence[str]) -> dict[str, Overhead]:
    """Each door beside `Retriever.search`, and beside its framework alone."""
    from benchmarks._doors import CORE, K, readymade

    ready = {f"{name}, ready-made": door for name, door in readymade(kb, queries[0]).items() if name in doors}
    settled()
    asked = {CORE: lambda query: kb.search(query, K)} | {name: door.ask for name, door in {**doors, **ready}.items()}
    medians = {name: [statistics.median(turn) for turn in turns] for name, turns in rounds_of(asked, queries).items()}
    found = {}
    for name in doors:
        over = [mine - core for mine, core in zip(medians[name], medians[CORE], strict=True)]
        found[name] = Overhead(over, medians[name], medians.get(f"{name}, ready-made", []))
    return found


def all_overheads(corpus: Corpus, scratch: Path) -> dict[str, dict[str, Overhead]]:
    """By collection: documents through all doors, then nodes of LlamaIndex through its own."""
    from benchmarks._doors import add_nodes, encoded, langchain_doors, llama_index_doors, nodes_of

    texts = [each.text for each in corpus.documents]
    documents = [
        Document(f"{text}\n{other}"[:_LENGTH], each.id, {**each.metadata, "page": number, "draft": number % 2 == 0})
        for number, (each, text, other) in enumerate(zip(corpus.documents, texts, texts[1:] + texts[:1], strict=True))
    ][:_FEW]
    nodes = nodes_of(documents)
    keys = [each.text for each in documents] + [encoded(node) for node in nodes]
    rows = dict(zip(keys, np.concatenate([corpus.rows[:_FEW]] * 2), strict=True))
    places = {"memory:": ("memory:", False), "edge:": ("edge:", False), "edge:, model checked": ("edge:", True)}
    found = {}
    for number, (what, (scheme, checked)) in enumerate(places.items()):
        known = corpus.known(rows, checked)
        urls = [scheme if scheme == "memory:" else f"edge:{scratch}/{kind}{number}" for kind in ("documents", "nodes")]
        with Retriever.open(urls[0], known) as kb, Retriever.open(urls[1], known) as other:
            kb.add(documents, show_progress=False)
            add_nodes(other, nodes)
            found[what] = overheads(kb, langchain_doors(kb) | llama_index_doors(kb), corpus.queries)
            ours = overheads(other, llama_index_doors(other), corpus.queries)
            found[what] |= {f"{name}{_OWN}": each for name, each in ours.items()}
    return found


def overhead_rows(found: Mapping[str, Mapping[str, Overhead]]) -> list[Row]:
    """Every door's overhead, in every collection."""
    from benchmarks._doors import LC_RETRIEVER, LC_STORE, LC_STORE_RETRIEVER, LI_INDEX, LI_RETRIEVER

    groups = {
        "LangChain": [LC_RETRIEVER, LC_STORE, LC_STORE_RETRIEVER],
        "LlamaIndex": [LI_RETRIEVER],
        "LlamaIndex's own index over our store": [LI_INDEX],
    }
    rows = []
    for group, names in groups.items():
        for what, doors in found.items():
            mine = {name: each for name, each in doors.items() if name.removesuffix(_OWN) in names}
            medians = {name.partition(": ")[2]: statistics.median(each.over) for name, each in mine.items()}
            figures = [f"{name} {median:.2f} ms" for name, median in medians.items()]
            met = all(median <= _OVERHEAD for median in medians.values())
            figure = f"{group}: over `Retriever.search`, {what}"
            rows.append(Row(figure, f"<= {_OVERHEAD} ms", "; ".join(figures), met))
    return rows


def overhead_table(found: Mapping[str, Mapping[str, Overhead]]) -> str:
    """Every door of every collection: the whole, what is over the core's search, and what the framework does alone."""
    lines = [["door", "collection", "p50, ms", "over `Retriever.search`, ms", "the framework alone, ms"], ["---"] * 5]
    for what, doors in found.items():
        for name, each in doors.items():
            alone = f"{statistics.median(each.alone):.2f}" if each.alone else ""
            lines.append([name, what, f"{statistics.median(each.whole):.2f}", spread(each.over), alone])
    return tabled(lines)


def tabled(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def stock(corpus: Corpus, embeddings: Any, place: Mapping[str, Any], documents: Sequence[Document], rows: Any) -> Any:
    """langchain-qdrant over the same vectors: its store, and its client to close."""
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient
    from qdrant_client.models import Distance, PointStruct, VectorParams

    client = QdrantClient(**place)
    client.create_collection("passages", VectorParams(size=rows.shape[1], distance=Distance.COSINE))
    points = [
        PointStruct(
            id=str(uuid.uuid5(uuid.NAMESPACE_URL, document.id)),
            vector=row.tolist(),
            payload={"page_content": document.text, "metadata": document.metadata},
        )
        for document, row in zip(documents, rows, strict=True)
    ]
    for start in range(0, len(points), 1000):
        client.upsert("passages", points[start : start + 1000])
    return QdrantVectorStore(client, "passages", embeddings), client


def end_to_end(corpus: Corpus, embeddings: Any, size: int, scratch: Path, seed: int) -> list[Row]:
    """A question through LangChain's retrievers, and its encoding alone."""
    from benchmarks._doors import K

    random = np.random.default_rng(seed)
    noise = random.normal(size=(size, corpus.rows.shape[1])).astype(np.float32)
    rows = np.repeat(corpus.rows, _COPIES, axis=0)[:size] + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    documents = [
        Document(f"{each.text} ({copy})", f"{each.id}/{copy}", each.metadata)
        for each in corpus.documents
        for copy in range(_COPIES)
    ][:size]
    corpus.collection(scratch / "many", documents, rows)
    store, client = stock(corpus, embeddings, {"path": str(scratch / "qdrant")}, documents, rows)
    say(f"{len(documents):,} documents are written twice")
    with Retriever.open(scratch / "many", corpus.model) as kb:
        for _ in range(2):  # an index that had begun before the last write is followed by another
            kb.store.optimize()  # type: ignore[attr-defined]
        ours, theirs = kb.as_langchain(k=K), store.as_retriever(search_kwargs={"k": K})
        settled()
        asked = {
            "ours": ours.invoke,
            "theirs": theirs.invoke,
            "our encoding": lambda query: corpus.model.encode_query([query]),
            "their encoding": embeddings.embed_query,
        }
        spent = rounds_of(asked, corpus.queries)
        pairs = [(_texts(ours.invoke(query)), _texts(theirs.invoke(query))) for query in corpus.queries]
    client.close()
    same = sum(mine == other for mine, other in pairs)
    p50 = {name: statistics.median([each for turn in turns for each in turn]) for name, turns in spent.items()}
    ratios = [
        statistics.median(theirs) / statistics.median(ours)
        for ours, theirs in zip(spent["ours"], spent["theirs"], strict=True)
    ]
    measured = f"{spread(ratios)}; p50 {p50['ours']:.1f} ms, {p50['theirs']:.1f} ms"
    shares = [f"{p50[f'{whose} encoding'] / p50[all]:.0%}" for whose, all in (("our", "ours"), ("their", "theirs"))]
    rest = [p50[all] - p50[f"{whose} encoding"] for whose, all in (("our", "ours"), ("their", "theirs"))]
    return [
        Row(
            f"a query end to end through LangChain at {size:,} documents: times faster than {STOCK} `path=`",
            f">= {_FASTER:g}",
            measured,
            statistics.median(ratios) >= _FASTER,
        ),
        Row(
            "of it encoding", "", f"{shares[0]} (theirs {shares[1]}); the rest {rest[0]:.1f} ms (theirs {rest[1]:.1f})"
        ),
        Row("the same documents found", "", f"{same} of {len(pairs)}"),
    ]


def _texts(found: Sequence[Any]) -> list[str]:
    return sorted(each.page_content for each in found)


def settled() -> None:
    """Collect what was left over, and keep the collector away from what stays: the same for every system."""
    gc.collect()
    gc.freeze()


async def concurrency(corpus: Corpus, embeddings: Any, scratch: Path, rounds: int) -> tuple[list[Row], str]:
    """All questions at once: answers, stalls, seconds."""
    from benchmarks._doors import (
        LC_RETRIEVER,
        LC_STORE,
        LI_INDEX,
        LI_RETRIEVER,
        Door,
        langchain_doors,
        llama_index_doors,
        readymade,
    )
    from benchmarks._stalls import at_once, beside_threads, idle

    documents, rows = corpus.documents[:_FEW], corpus.rows[:_FEW]
    corpus.collection(scratch / "few", documents, rows)
    store, client = stock(corpus, embeddings, {"location": ":memory:"}, documents, rows)
    with Retriever.open(scratch / "few", corpus.model) as kb:
        doors = langchain_doors(kb) | llama_index_doors(kb)
        del doors[LC_STORE]
        systems = doors | {f"{STOCK} `:memory:`": Door.of(store.as_retriever())}
        alone = readymade(kb, corpus.queries[0])
        ready = {f"{name}, ready-made": alone[name] for name in (LC_RETRIEVER, LI_RETRIEVER, LI_INDEX)}
        settled()
        resting = await idle(2)
        real = await at_once(systems, corpus.queries, rounds)
        say("with the model")
        beside = await beside_threads(doors, corpus.queries, _THREADS)
        say(f"with the model, beside {_THREADS} threads")
    with Retriever.open(scratch / "few", corpus.known({})) as kb:
        free_doors = langchain_doors(kb) | llama_index_doors(kb)
        del free_doors[LC_STORE]
        settled()
        free = await at_once(free_doors, corpus.queries, _FREE * rounds)
        lone = await at_once(ready, corpus.queries, _FREE * rounds)
        free_beside = await beside_threads(free_doors, corpus.queries, _THREADS)
    client.close()
    mine = {name: real[name] for name in doors}
    every = [*mine.values(), *(free[name] for name in free_doors)]
    besides = [*beside.values(), *free_beside.values()]
    stalls = [f"{name} {each.stall():.1f} ms" for name, each in mine.items()]
    table = [
        ["asked at once", "answered as alone", "stall p50, ms", "p99", "longest", "at once over in turn", "at once, s"],
        ["---"] * 7,
        ["nothing", "", *(f"{resting.stall(percent):.1f}" for percent in (50, 99, 100)), "", ""],
    ]
    for what, found in (
        ("", real),
        (", no encoding", free),
        ("", lone),
        (f", beside {_THREADS} threads", beside),
        (f", no encoding, beside {_THREADS} threads", free_beside),
    ):
        for name, each in found.items():
            ratios = [together / alone for together, alone in zip(each.together, each.alone, strict=True)]
            seconds = [spread(ratios), f"{statistics.median(each.together):.2f}"] if ratios else ["", ""]
            late = [f"{each.stall(percent):.1f}" for percent in (50, 99, 100)]
            table.append([f"{name}{what}", f"{each.same:,} of {each.asked:,}", *late, *seconds])
    return [
        Row(
            f"{len(corpus.queries)} at once: answered as in turn",
            "all",
            f"{sum(each.same for each in every):,} of {sum(each.asked for each in every):,}",
            all(each.same == each.asked for each in every),
        ),
        Row(
            f"the event loop's stall meanwhile, p99 (idle {resting.stall():.1f} ms)",
            f"< {_STALL:g} ms",
            "; ".join(stalls),
            all(each.stall() < _STALL for each in mine.values()),
        ),
        Row(f"the same of {STOCK}", "", f"{real[f'{STOCK} `:memory:`'].stall():.1f} ms"),
        Row(
            f"beside {_THREADS} threads with the blocking interface: answered as in turn, and none hung",
            "all",
            f"{sum(each.same for each in besides):,} of {sum(each.asked for each in besides):,}",
            all(each.same == each.asked for each in besides),
        ),
    ], tabled(table)


def prepare(args: argparse.Namespace) -> Corpus:
    """The model, and what is encoded once for everything."""
    count = max(_FEW, -(-args.documents // _COPIES))
    chosen = passages(count + args.queries, args.seed)
    model = MLRModel.from_pretrained(DEFAULT_MODEL)
    documents = chosen[args.queries :]
    queries = [each.text[:_SHORT].strip() for each in chosen[: args.queries]]
    rows = model.encode_document([each.text for each in documents])
    return Corpus(model, documents, rows, queries, model.encode_query(queries))


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--documents", type=int, default=20_000)
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--rounds", type=int, default=2, help="of all queries at once")
    args = options.parse_args()
    if absent := missing(PEERS):
        raise SystemExit(f"not installed: {', '.join(absent)}; pip install -c constraints.txt -e '.[dev]'")
    import torch
    from langchain_huggingface import HuggingFaceEmbeddings

    quiet()
    corpus = prepare(args)
    say(f"{len(corpus.documents):,} passages are encoded")
    device = {"device": str(corpus.model.device)}
    embeddings = HuggingFaceEmbeddings(model_name=str(resolve(DEFAULT_MODEL)), model_kwargs=device)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        over = all_overheads(corpus, scratch)
        say("overheads")
        faulthandler.dump_traceback_later(_PATIENCE, exit=True)  # were two calls to wait for each other
        together, stalls = asyncio.run(concurrency(corpus, embeddings, scratch, args.rounds))
        faulthandler.cancel_dump_traceback_later()
        say("all at once")
        rows = [*overhead_rows(over), *end_to_end(corpus, embeddings, args.documents, scratch, args.seed), *together]
    report(
        "frameworks",
        "LangChain and LlamaIndex: what the doors cost",
        args,
        rows,
        f"All on {DEFAULT_MODEL}, in one process with {torch.get_num_threads()} torch threads; k = 4. Passages: "
        "docstrings of Python's standard library, encoded once. After everything is set up, what is in memory is kept "
        "from the garbage collector, for all alike. "
        f"Over `Retriever.search`: {_FEW:,} documents of up to {_LENGTH} characters with three fields, and the same as "
        f"nodes that a VectorStoreIndex added; doors take turns of {_RUN} of {args.queries} questions, and a figure is "
        "the median of the differences of a turn's medians. The vectors are known beforehand, so that encoding is a "
        "look-up; an MLRModel also looks whether its weights have changed, in every search, and that is in "
        '"model checked". The framework alone: its own retriever, or index with a store and an embedding, that '
        "gives back what is ready-made. "
        f"End to end: {args.documents:,} documents, each of the passages {_COPIES} times, its vector turned to a "
        f"cosine of about 0.9, in an edge folder with its index built and in `QdrantClient(path=)`; turns of {_RUN} "
        "questions, between which each encoding alone has one too; the range is that of the turns. "
        f"At once: {len(corpus.queries)} questions over {_FEW:,} passages in an edge folder (theirs in memory), "
        f"{args.rounds} times ({_FREE * args.rounds} where nothing is encoded), each time beside the same questions "
        "asked in turn from one thread. Answered as alone: the same documents in the same order, of LlamaIndex with "
        "the same scores. Stall: how much later than asked a task wakes up that sleeps for a millisecond, over and "
        "over. The target is judged with the model; with nothing to encode all is over in a tenth of a second, and the "
        "one beat in which every call begins is more than a hundredth of all: the ready-made ones show how much of it "
        "is the frameworks'. None hung: one that "
        f"does would end the run after {_PATIENCE:.0f} s.",
        "a GPU, stores on servers, several event loops, chains and query engines around the retrievers.",
        PEERS,
        f"{overhead_table(over)}\n\n{stalls}",
    )


if __name__ == "__main__":
    main()
