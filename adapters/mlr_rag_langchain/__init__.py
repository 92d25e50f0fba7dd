"""mlr_rag in LangChain: embeddings, a vector store and a retriever of its own kinds.

>>> from mlr_rag import Retriever
>>> retriever = Retriever.open("./kb").as_langchain(k=4)
>>> retriever.invoke("What is France's capital?")
"""

from mlr_rag_langchain.documents import from_langchain, to_langchain
from mlr_rag_langchain.embeddings import MLREmbeddings
from mlr_rag_langchain.retrievers import MLRRetriever
from mlr_rag_langchain.vectorstores import MLRVectorStore

__all__ = ["MLREmbeddings", "MLRRetriever", "MLRVectorStore", "from_langchain", "to_langchain"]
