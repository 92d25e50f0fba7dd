"""A retriever in ten lines: a folder on disk, a local model, nothing to start."""

from mlr_rag import Document, Retriever

with Retriever.open("./kb") as kb:  # made on the first run, reopened later
    kb.add(
        [
            Document("Paris is the capital of France.", metadata={"topic": "geography"}),
            Document("Water boils at 100 degrees Celsius at sea level.", metadata={"topic": "physics"}),
            Document("Scurvy is caused by a lack of vitamin C.", metadata={"topic": "medicine"}),
        ]
    )
    for hit in kb.search("Why did sailors eat lemons?", k=2):
        print(f"{hit.score:.3f}  {hit.document.text}")
    print(kb.count(), "documents")  # still three when this is run again
