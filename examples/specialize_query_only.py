"""Teach a knowledge base's model your queries, and encode no document again: `... KB CLICK_LOG`.

KB is a knowledge base; CLICK_LOG JSON lines such as {"query": "...", "clicked": "a document's id"}. Without these, both
are made up.
"""

import sys

from mlr_rag import Document, Retriever, specialize
from mlr_rag.evaluation.collection import Collection
from mlr_rag.training.made_up import made_up

if len(sys.argv) not in (1, 3):
    sys.exit("usage: python specialize_query_only.py [KB CLICK_LOG]")
place, queries = sys.argv[1:] or ("./made-up-kb", made_up()[0])

with Retriever.open(place) as kb:
    if len(sys.argv) == 1:
        kb.add([Document(text, id) for id, text in Collection.unjudged(queries).texts()])
    base = kb.model.without_query_adapter()  # which it has if this ran before
    result = specialize(base, kb, queries, objective="queries", budget="10min", output="models/query-only")
    print(result)
    if result.accepted:
        print(kb.reindex(result.model).encoded, "documents encoded again")
with Retriever.open(place) as kb:
    print("searched by", kb.info().model)
