"""Our suite of LlamaIndex vector stores over the stores in _llama_index_stores.py: how much of it each one passes.

python -m benchmarks.llama_index_suite
"""

from __future__ import annotations

from benchmarks._suites import compare


def main() -> None:
    compare(
        "llama_index_suite",
        "A suite of LlamaIndex vector stores",
        "LlamaIndex has no standard suite, so this is ours, `mlr_rag_llama_index.testing.VectorStoreSuite`: one "
        "contract a test, from the docstrings of llama-index-core or from what its indices and pipelines do with a "
        "store. Run over our adapter and those that LlamaIndex ships; Qdrant's async client shares the memory of its "
        "blocking one, as with a server and unlike its local mode.",
        (
            "llama-index-core",
            "llama-index-vector-stores-qdrant",
            "llama-index-vector-stores-chroma",
            "qdrant-client",
            "chromadb",
        ),
        __doc__,
    )


if __name__ == "__main__":
    main()
