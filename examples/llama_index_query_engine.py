"""A LlamaIndex query engine over a knowledge base, and one over LlamaIndex's own index in our store."""

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine

from mlr_rag import Retriever
from mlr_rag_llama_index import MLRVectorStore

FACTS = ["Scurvy is caused by a lack of vitamin C.", "Water boils at 100 degrees Celsius.", "Paris is in France."]
llm = MockLLM(max_tokens=16)  # A real one goes here: any LLM of LlamaIndex's, such as OpenAI() or Ollama("llama3.2").

with Retriever.open("./kb") as kb:
    kb.add(FACTS)
    engine = RetrieverQueryEngine.from_args(kb.as_llama_index(similarity_top_k=1), llm=llm)
    (source,) = engine.query("Why did sailors eat lemons?").source_nodes
    print(f"{source.score:.3f} {source.text}")

store = MLRVectorStore.open("./nodes", "sentence-transformers/all-MiniLM-L6-v2")
index = VectorStoreIndex.from_vector_store(store, embed_model=store.embed_model)
for fact in FACTS:
    index.insert(Document(text=fact, id_=fact[:5]))
(source,) = index.as_query_engine(llm=llm, similarity_top_k=1).query("Why did sailors eat lemons?").source_nodes
print(f"{source.score:.3f} {source.text}")
store.close()
