"""One store, read through both frameworks: the same documents with the same ids, in the same order."""

import asyncio

from mlr_rag import Document, Retriever

DOCUMENTS = [
    Document("Scurvy is caused by a lack of vitamin C.", id="scurvy", metadata={"topic": "health"}),
    Document("Lemons, limes and oranges are full of vitamin C.", id="lemons", metadata={"topic": "health"}),
    Document("Water boils at 100 degrees Celsius.", id="water", metadata={"topic": "physics"}),
]

question = "Why did sailors eat lemons?"
with Retriever.open("./kb") as kb:
    kb.add(DOCUMENTS)
    print("mlr_rag    ", [hit.document.id for hit in kb.search(question, k=2)])
    print("LangChain  ", [document.id for document in kb.as_langchain(k=2).invoke(question)])
    print("LlamaIndex ", [scored.node_id for scored in kb.as_llama_index(2).retrieve(question)])
    print("and async  ", [document.id for document in asyncio.run(kb.as_langchain(k=2).ainvoke(question))])
