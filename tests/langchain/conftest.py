"""Every store of ours, by URL; and one that is filled, for tests that only read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlr_rag.testing import HashEncoder
from mlr_rag_langchain import MLRVectorStore
from tests.langchain.material import documents

STORES = {
    "memory": "memory:",
    "edge": "edge:{folder}/kb",
    "qdrant-memory": "qdrant::memory:",
    "qdrant-folder": "qdrant:{folder}/qdrant/documents",
    "chroma-memory": "chroma::memory:",  # without a name it is a collection of its own
    "chroma-folder": "chroma:{folder}/chroma/documents",
}
_SHARED_MEMORY = Path("/dev/shm")  # some of them wait for the disk at every document
_PARAMS = [
    pytest.param(name, marks=pytest.mark.filterwarnings("ignore:Qdrant's local mode:UserWarning")) for name in STORES
]


@pytest.fixture(params=_PARAMS)
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A place for a new collection, in each store."""
    with _folder() as folder:
        yield STORES[request.param].format(folder=folder)


@pytest.fixture(scope="module", params=_PARAMS)
def full(request: pytest.FixtureRequest) -> Iterator[MLRVectorStore]:
    """60 documents in each store, to read."""
    with _folder() as folder, MLRVectorStore.open(STORES[request.param].format(folder=folder), HashEncoder()) as store:
        store.add_documents(documents(60))
        yield store


@pytest.fixture
def store() -> Iterator[MLRVectorStore]:
    """An empty store in memory."""
    with MLRVectorStore.open("memory:", HashEncoder()) as store:
        yield store


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=_SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None)
