"""What the suites share: the fixtures to override, and what they say of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from mlr_rag.stores import VectorStore

Make: TypeAlias = Callable[..., VectorStore]


class Suite:
    """Base of the suites.

    Attributes:
        several: Whether the store can hold several vectors a document; if not, it must refuse to.
    """

    several = True

    @pytest.fixture
    def make(self) -> Make:
        """Override: a function `(dimension, vectors_per_document=1)` that opens a collection, or makes it.

        All calls within one test mean the same collection; each test starts with none.
        """
        raise NotImplementedError("a store's suite needs a fixture `make`")

    @pytest.fixture
    def store(self, make: Make) -> Iterator[VectorStore]:
        """An empty store of 8 dimensions."""
        store = make(8)
        yield store
        store.close()
