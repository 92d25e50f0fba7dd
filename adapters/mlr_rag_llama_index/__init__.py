"""mlr_rag in LlamaIndex: an embedding, a vector store and a retriever of its own kinds.

>>> from llama_index.core.query_engine import RetrieverQueryEngine
>>> from mlr_rag import Retriever
>>> retriever = Retriever.open("./kb").as_llama_index(similarity_top_k=4)
>>> RetrieverQueryEngine.from_args(retriever, llm=llm).query("What is France's capital?")
"""

from mlr_rag_llama_index.embeddings import MLREmbedding
from mlr_rag_llama_index.nodes import from_llama_index, to_llama_index
from mlr_rag_llama_index.retrievers import MLRRetriever
from mlr_rag_llama_index.vector_stores import MLRVectorStore

__all__ = ["MLREmbedding", "MLRRetriever", "MLRVectorStore", "from_llama_index", "to_llama_index"]
