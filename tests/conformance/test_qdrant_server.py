"""The suite over a real Qdrant server: see adapters/mlr_rag_qdrant/docker-compose.yml."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mlr_rag.errors import StoreNotFoundError
from mlr_rag.stores import open_store
from mlr_rag.testing import Make, PersistentStoreSuite

pytestmark = pytest.mark.skipif(
    not os.environ.get("QDRANT_URL"), reason="no server: set QDRANT_URL, such as http://127.0.0.1:6333"
)


class TestQdrantServer(PersistentStoreSuite):
    @pytest.fixture
    def make(self) -> Iterator[Make]:
        scheme, _, place = os.environ["QDRANT_URL"].rstrip("/").partition("://")
        url = f"qdrant{'+https' * (scheme == 'https')}://{place}/test-{uuid.uuid4().hex}"
        yield lambda dimension, vectors=1: open_store(url, dimension=dimension, vectors_per_document=vectors)
        with suppress(StoreNotFoundError):
            open_store(url).drop()
