"""Every store at three sizes, each in a process of its own, beside its raw client doing the same work.

python -m benchmarks.stores [--stores edge chroma-server] [--sizes 1000 10000]

What was measured is kept in build/stores.json, so that a part can be measured again and the section is of all of them.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks._common import ROOT, Row, missing, parser, report, say, spread
from benchmarks._deployments import NAMES, OURS, RAW
from benchmarks._measuring import PATIENCE, RUN, measure

SIZES = (1000, 10_000, 100_000)
HOPELESS = {("qdrant-path", 100_000)}  # one fsync a point
_SHARE, _SPARE = 1.1, 0.2  # of a query over the raw client's, or milliseconds
_INGEST = 1.3
_LARGE = 100_000


def table(rows: list[dict[str, Any]]) -> list[Row]:
    """The targets: of each store over its raw client, and of edge at its largest."""
    made = []
    for name in NAMES:
        mine = [row for row in rows if row["store"] == name and "ingest_over_raw" in row]
        if mine:
            made += [_query_row(mine, "query", "a query"), _query_row(mine, "filtered", "a filtered query")]
            made.append(_ingest_row(mine))
    edge = [row for row in rows if row["store"] == "edge" and row["size"] == _LARGE]
    return made + [each for row in edge for each in _edge_rows(row)]


def _query_row(rows: list[dict[str, Any]], kind: str, what: str) -> Row:
    pairs = [(row["size"], *(row[f"{kind}_ms"][each][0] for each in (OURS, RAW))) for row in rows]
    figures = [f"{size:,}: {ours / raw:.2f} ({ours:.2f} ms, {raw:.2f} ms)" for size, ours, raw in pairs]
    met = all(ours <= max(_SHARE * raw, raw + _SPARE) for _, ours, raw in pairs)
    return Row(
        f"{rows[0]['store']}: {what} over the raw client's, p50", "<= 1.10 or 0.2 ms more", "; ".join(figures), met
    )


def _ingest_row(rows: list[dict[str, Any]]) -> Row:
    met = all(statistics.median(row["ingest_over_raw"]) <= _INGEST for row in rows)
    figures = [f"{row['size']:,}: {spread(row['ingest_over_raw'])}" for row in rows]
    return Row(f"{rows[0]['store']}: ingest over the raw client's", f"<= {_INGEST}", "; ".join(figures), met)


def _edge_rows(row: dict[str, Any]) -> Iterator[Row]:
    query, filtered, recall = row["query_ms"][OURS][0], row["filtered_ms"][OURS][0], row["query_recall"][OURS]
    built, size = row["index_s"][OURS], row["size"]
    yield Row(f"edge at {size:,}: a query, p50", "<= 2 ms", f"{query:.2f} ms", query <= 2)
    yield Row(f"edge at {size:,}: recall@10", ">= 0.98", f"{recall:.3f}", recall >= 0.98)
    yield Row(f"edge at {size:,}: a filtered query, p50", "<= 2 ms", f"{filtered:.2f} ms", filtered <= 2)
    yield Row(
        f"edge at {size:,}: ingest of a document over that of the first 1,000 in the same run",
        "<= 2",
        f"{row['ingest_over_first']:.2f} ({row['ingest_ms'][OURS]:.2f} ms)",
        row["ingest_over_first"] <= 2,
    )
    yield Row(
        f"edge at {size:,}: ingest of the last tenth over that of the first",
        "<= 2",
        f"{row['last_part_over_first']:.2f}",
        row["last_part_over_first"] <= 2,
    )
    yield Row(
        f"edge at {size:,}: building the index, in the background",
        "",
        f"{built:.0f} s, {1000 * built / size:.2f} ms a document (raw: {row['index_s'][RAW]:.0f} s)",
    )


_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "store": lambda row: str(row["store"]),
    "documents": lambda row: f"{row['size']:,}",
    "ingest, ms a document": lambda row: _both(row["ingest_ms"], "{:.2f}"),
    "query p50, ms": lambda row: _both(_part(row["query_ms"], 0), "{:.2f}"),
    "p95": lambda row: _both(_part(row["query_ms"], 1), "{:.2f}"),
    "recall@10": lambda row: _both(row["query_recall"], "{:.3f}"),
    "filtered p50, ms": lambda row: _both(_part(row["filtered_ms"], 0), "{:.2f}"),
    "filtered p95": lambda row: _both(_part(row["filtered_ms"], 1), "{:.2f}"),
    "filtered recall@10": lambda row: _both(row["filtered_recall"], "{:.3f}"),
    "open, ms": lambda row: _both(row.get("open_ms", {}), "{:,.0f}"),
    "disk, MiB": lambda row: _both(row["disk_mib"], "{:,.0f}"),
    "memory, MiB": lambda row: _both(row["memory_mib"], "{:,.0f}"),
    "measured": lambda row: f"{row['date']}, load {row['load']}",
}


def _part(values: dict[str, list[float]], number: int) -> dict[str, float]:
    return {name: each[number] for name, each in values.items()}


def _both(values: dict[str, float], form: str) -> str:
    """Ours, and the raw client's in brackets."""
    shown = {name: form.format(value) for name, value in values.items()}
    return shown.get(OURS, "") + (f" ({shown[RAW]})" if RAW in shown else "")


def details(rows: Iterable[dict[str, Any]]) -> str:
    """Everything that was measured, as a table."""
    lines = [list(_COLUMNS), ["---"] * len(_COLUMNS), *([cell(row) for cell in _COLUMNS.values()] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def one(name: str, size: int, queries: int, seed: int) -> dict[str, Any] | None:
    """What a process of its own measured; None where it failed."""
    words = ["--one", name, str(size), "--queries", str(queries), "--seed", str(seed)]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.stores", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return None
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--stores", nargs="+", choices=NAMES, default=list(NAMES))
    options.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    options.add_argument("--queries", type=int, default=200)
    options.add_argument("--cache", type=Path, default=ROOT / "build" / "stores.json", help="what was measured so far")
    options.add_argument("--one", nargs=2, metavar=("STORE", "SIZE"), help="measure one in this process, as JSON")
    args = options.parse_args()
    if absent := missing(("qdrant-client", "chromadb")):
        raise SystemExit(f"not installed: {', '.join(absent)}; pip install -c constraints.txt -e '.[dev]'")
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), args.queries, args.seed)))
        return
    known: dict[str, dict[str, Any]] = json.loads(args.cache.read_text()) if args.cache.exists() else {}
    wanted = [(name, size) for size in sorted(args.sizes) for name in args.stores if (name, size) not in HOPELESS]
    failed = []
    for name, size in wanted:
        say(f"{name}, {size:,} documents")
        row = one(name, size, args.queries, args.seed)
        if row is None:
            failed.append(f"{name} {size}")
            continue
        known[f"{name} {size}"] = row
        args.cache.parent.mkdir(parents=True, exist_ok=True)
        args.cache.write_text(json.dumps(known, indent=1))
        print(details([row]).splitlines()[-1], flush=True)
    rows = sorted(known.values(), key=lambda row: (NAMES.index(row["store"]), row["size"]))
    report(
        "stores",
        "The stores, and what they cost over their raw clients",
        args,
        table(rows),
        "Each store and size in a process of its own, with two collections, ours and the raw client's (in brackets; "
        "memory has none), that take turns: batch by batch of 256 documents, and in searches by "
        f"{RUN}. The raw client stores the same fields as ours, those that only ours has a use for made beforehand, "
        "in a collection with the same parameters, and asks for as much of them; edge's raw client is qdrant_edge. "
        "Documents: vectors of 384 dimensions in clusters of 50, 300 characters of text, three fields of metadata. A "
        f"query is a vector of the same clusters that is not stored; there are {args.queries}, top 10, fewer (never "
        f"under {RUN}) where all turns together take more than {PATIENCE:.0f} s, after as many others that are not "
        "timed. Filtered: `year` is in a range that two years of 25 are in. "
        "Recall: answers as near as the exact 10th. Ingest: the range is that "
        "of ten parts of the run (with under 10,000 documents, of the batches of three runs); each batch is "
        "acknowledged before the next. Open: closing, opening, and the first "
        "answer, median of 3, files in the system's cache. Memory: what the turns of a system added to the resident "
        "set of the process, or, of chroma-server, of its server. Edge's index is built when filling has ended and "
        "before the queries; with fewer than 20,000 documents it has none.",
        "the first queries of a process (edge at 100,000: 2.9 ms instead of what is above, as each page of its files "
        "is mapped when it is first read), filters on several fields or that leave a quarter of the documents (edge at "
        "100,000: 3 to 9 ms, in trials apart), qdrant-path at 100,000 (it waits for the disk once a document), "
        "a Qdrant server (none can be had on this machine), servers over a network, several clients at once.",
        ("qdrant-edge-py", "qdrant-client", "chromadb"),
        details(rows),
    )
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
