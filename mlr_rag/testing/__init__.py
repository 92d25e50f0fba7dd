"""The conformance suite of stores, for whoever writes one; needs pytest and hypothesis.

    import pytest
    from mlr_rag.testing import PersistentStoreSuite

    class TestMyStore(PersistentStoreSuite):
        @pytest.fixture
        def make(self, tmp_path):
            return lambda dimension, vectors_per_document=1: MyStore(tmp_path, dimension, vectors_per_document)

A store that passes it unmodified can be used by every Retriever. `StoreSuite` is for stores that do not outlive their
process; `PersistentStoreSuite` adds reopening and kill -9, for which `open_store(store.url)` must open the store.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"mlr_rag.testing.{name}"
        for name in ("concurrency", "contract", "filters", "generations", "persistence", "retrieval")
    )
)

from mlr_rag.testing.base import Make  # noqa: E402 - after the asserts in it were prepared
from mlr_rag.testing.encoder import HashEncoder  # noqa: E402
from mlr_rag.testing.suites import PersistentStoreSuite, StoreSuite  # noqa: E402
from mlr_rag.testing.vectors import unit_rows  # noqa: E402

__all__ = ["HashEncoder", "Make", "PersistentStoreSuite", "StoreSuite", "unit_rows"]
