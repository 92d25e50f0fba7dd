"""The index knows its model: another one is refused, with the way out."""

from mlr_rag import MLRModel, ModelMismatchError, Retriever

base = "sentence-transformers/all-MiniLM-L6-v2"
with Retriever.open("./kb", base) as kb:
    kb.add("Paris is the capital of France.")

try:
    Retriever.open("./kb", MLRModel.from_pretrained(base, pooling="mean", start="paper"))
except ModelMismatchError as error:
    print(error)

with Retriever.open("./kb") as kb:  # without a model: the one that the collection was made with
    print(kb.search("What is the capital of France?")[0].document.text)
