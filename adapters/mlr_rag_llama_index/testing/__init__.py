"""A suite of LlamaIndex vector stores, for theirs and ours; LlamaIndex has none. Needs pytest.

    import pytest
    from mlr_rag_llama_index.testing import VectorStoreSuite

    class TestMyStore(VectorStoreSuite):
        @pytest.fixture
        def store(self):
            return MyVectorStore(...)

`store` is an empty store that keeps text; every test has one of its own. All vectors are `embed_model`'s. One test is
one contract, by what the docstrings of llama-index-core say, or what its indices and pipelines do with a store.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"mlr_rag_llama_index.testing.{name}"
        for name in ("asynchronous", "base", "filtering", "framework", "keeping", "removing", "searching")
    )
)

from mlr_rag_llama_index.testing.asynchronous import Asynchronous  # noqa: E402 - after the asserts in it were prepared
from mlr_rag_llama_index.testing.embedding import HashEmbedding  # noqa: E402
from mlr_rag_llama_index.testing.filtering import Filtering  # noqa: E402
from mlr_rag_llama_index.testing.framework import Framework  # noqa: E402
from mlr_rag_llama_index.testing.keeping import Keeping  # noqa: E402
from mlr_rag_llama_index.testing.removing import Removing  # noqa: E402
from mlr_rag_llama_index.testing.searching import Searching  # noqa: E402

__all__ = ["HashEmbedding", "VectorStoreSuite"]


class VectorStoreSuite(Keeping, Searching, Filtering, Removing, Asynchronous, Framework):
    """What a vector store must do to be used by LlamaIndex without surprises."""
