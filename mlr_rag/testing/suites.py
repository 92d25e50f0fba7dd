"""The two suites, made of their parts."""

from __future__ import annotations

from mlr_rag.testing.concurrency import Concurrency
from mlr_rag.testing.contract import Contract
from mlr_rag.testing.filters import Filters
from mlr_rag.testing.generations import Generations
from mlr_rag.testing.persistence import Persistence
from mlr_rag.testing.retrieval import Retrieval


class StoreSuite(Contract, Filters, Generations, Concurrency, Retrieval):
    """What every store must pass."""


class PersistentStoreSuite(StoreSuite, Persistence):
    """What every store that outlives its process must pass."""
