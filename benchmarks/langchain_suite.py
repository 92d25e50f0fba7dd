"""LangChain's own suite of vector stores over the stores in _langchain_stores.py: how much of it each one passes.

python -m benchmarks.langchain_suite
"""

from __future__ import annotations

from benchmarks._suites import compare


def main() -> None:
    compare(
        "langchain_suite",
        "LangChain's own suite of vector stores",
        "`VectorStoreIntegrationTests` of langchain-tests, unmodified, over our adapter and those LangChain ships. "
        '"(both)": the test and its async twin.',
        ("langchain-core", "langchain-tests", "langchain-qdrant", "langchain-chroma", "qdrant-client", "chromadb"),
        __doc__,
    )


if __name__ == "__main__":
    main()
