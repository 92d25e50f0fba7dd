"""Move a collection to another model, look at what changes first, and go back."""

from mlr_rag import MLRModel, Retriever

QUESTIONS = ["How do I reset my password?", "When are you open?"]

with Retriever.open("memory:") as kb:
    kb.add(["Reset a password under Settings.", "We are open from nine to five.", "The cat sat on the mat."])
    new = MLRModel.from_pretrained("sentence-transformers/all-MiniLM-L6-v2", pooling="mean", start="paper")

    looked = kb.reindex(new, compare=QUESTIONS, switch=False)  # everything is prepared, nothing has changed
    if looked.comparison is not None:
        print(f"the same best document for {looked.comparison.same_first:.0%} of the questions")

    kb.reindex(new)  # next to nothing is left to do
    switched = kb.info().recipe["pooling"]
    kb.rollback()
    print(f"switched to {switched}; back to {kb.info().recipe['pooling']}")
