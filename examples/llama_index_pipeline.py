"""An ingestion pipeline that is run again: what has not changed is left alone, what vanished is deleted."""

from pathlib import Path

from llama_index.core import Document
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore

from mlr_rag_llama_index import MLRVectorStore

FIRST = {"lemons": "Scurvy is caused by a lack of vitamin C.", "water": "Water boils at 100 degrees Celsius."}
THEN = {"lemons": "Scurvy is cured by lemons.", "paris": "Paris is the capital of France."}

store = MLRVectorStore.open("./kb", "sentence-transformers/all-MiniLM-L6-v2")
pipeline = IngestionPipeline(
    transformations=[SentenceSplitter(chunk_size=128, chunk_overlap=0), store.embed_model],
    vector_store=store,
    docstore=SimpleDocumentStore(),
    docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
)
if Path("./pipeline").exists():
    pipeline.load("./pipeline")
for texts in (FIRST, FIRST, THEN):
    encoded = pipeline.run(documents=[Document(text=text, id_=id) for id, text in texts.items()])
    print(f"{len(encoded)} encoded;", *sorted(node.ref_doc_id or "" for node in store.get_nodes()))
pipeline.persist("./pipeline")
store.close()
