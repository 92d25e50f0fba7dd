"""The process that builds an index: python -m mlr_rag_edge.build SHARD DIMENSION VECTORS_PER_DOCUMENT NICENESS PARENT.

A process of its own, as the engine keeps the interpreter's lock until the index is built.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import qdrant_edge as qdrant

from mlr_rag_edge.shard import config

_LINKS = 24  # of each vector to its neighbours
_CANDIDATES = 100  # looked at to choose them
_SCANNED = 40_000  # KiB of vectors: a filter that leaves no more than these is searched one by one
_SEGMENTS = 2  # one index for all, as a search in two takes twice as long, and what is written from now on
_PR_SET_PDEATHSIG = 1  # of Linux: the signal that a process gets when its parent ends


def build(path: str, dimension: int, vectors_per_document: int) -> None:
    """Index what is not indexed in a shard, and give the space of what was deleted back."""
    hnsw = qdrant.HnswIndexConfig(_LINKS, _CANDIDATES, _SCANNED, max_indexing_threads=os.cpu_count() or 1)
    optimizers = qdrant.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=_SEGMENTS)
    shard = qdrant.EdgeShard.load(path, config(dimension, vectors_per_document, hnsw, optimizers))
    shard.optimize()
    shard.flush()
    shard.close()


def end_with(parent: int) -> None:
    """Be killed when the parent is, where the system can do that: nobody would use what is built here any more."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before it could be asked for
            raise SystemExit(f"the process that asked for this index, {parent}, has ended")


if __name__ == "__main__":
    shard, *numbers = sys.argv[1:]
    dimension, vectors_per_document, niceness, parent = map(int, numbers)
    end_with(parent)
    if hasattr(os, "nice"):
        os.nice(niceness)
    build(shard, dimension, vectors_per_document)
