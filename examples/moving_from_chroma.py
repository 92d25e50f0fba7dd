"""From HuggingFaceEmbeddings and Chroma to mlr_rag in three lines; the rest of the program stays as it is.

- from langchain_huggingface import HuggingFaceEmbeddings
- from langchain_chroma import Chroma
- store = Chroma.from_documents(DOCUMENTS, HuggingFaceEmbeddings(model_name=MODEL), persist_directory="./kb")
+ from mlr_rag_langchain import MLREmbeddings
+ from mlr_rag_langchain import MLRVectorStore
+ store = MLRVectorStore.from_documents(DOCUMENTS, MLREmbeddings(MODEL), url="./kb")
"""

from langchain_core.documents import Document

from mlr_rag_langchain import MLREmbeddings, MLRVectorStore

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DOCUMENTS = [
    Document("Scurvy is caused by a lack of vitamin C.", metadata={"source": "health.md"}),
    Document("Water boils at 100 degrees Celsius.", metadata={"source": "physics.md"}),
]

store = MLRVectorStore.from_documents(DOCUMENTS, MLREmbeddings(MODEL), url="./kb")

retriever = store.as_retriever(search_kwargs={"k": 1, "filter": {"source": "health.md"}})
print(retriever.invoke("Why did sailors eat lemons?"))
store.close()
