"""A client of your own, with options that a URL has no place for."""

from qdrant_client import QdrantClient

from mlr_rag import MLRModel, Retriever
from mlr_rag_qdrant import QdrantStore

client = QdrantClient(":memory:")  # QdrantClient("http://localhost:6333"), with shard_number= and so on below
model = MLRModel.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")

with Retriever(model, QdrantStore(client, "docs", dimension=model.dimension)) as kb:
    kb.add(["Paris is the capital of France.", "Water boils at 100 degrees Celsius."])
    print(f"{kb.count()} documents")
