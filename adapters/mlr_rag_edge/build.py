"""The process that builds an index: python -m mlr_rag_edge.build SHARD DIMENSION VECTORS_PER_DOCUMENT NICENESS.

A process of its own, as the engine keeps the interpreter's lock until the index is built.
"""

from __future__ import annotations

import os
import sys

import qdrant_edge as qdrant

from mlr_rag_edge.shard import config

_LINKS = 24  # of each vector to its neighbours
_CANDIDATES = 100  # looked at to choose them
_SCANNED = 40_000  # KiB of vectors: a filter that leaves no more than these is searched one by one
_SEGMENTS = 2  # one index for all, as a search in two takes twice as long, and what is written from now on


def build(path: str, dimension: int, vectors_per_document: int) -> None:
    """Index what is not indexed in a shard, and give the space of what was deleted back."""
    hnsw = qdrant.HnswIndexConfig(_LINKS, _CANDIDATES, _SCANNED, max_indexing_threads=os.cpu_count() or 1)
    optimizers = qdrant.EdgeOptimizersConfig(indexing_threshold=1, default_segment_number=_SEGMENTS)
    shard = qdrant.EdgeShard.load(path, config(dimension, vectors_per_document, hnsw, optimizers))
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    shard, *numbers = sys.argv[1:]
    dimension, vectors_per_document, niceness = map(int, numbers)
    if hasattr(os, "nice"):
        os.nice(niceness)
    build(shard, dimension, vectors_per_document)
