"""Specialize a model on judged documents: `python specialize_labelled.py BEIR_FOLDER_OR_ZIP [TEACHER]`.

Without these, on a made-up collection. Stop it and run it again: it goes on where it was.
"""

import logging
import sys

from mlr_rag import Retriever, specialize
from mlr_rag.evaluation.collection import Collection
from mlr_rag.training.made_up import made_up

if len(sys.argv) > 3:
    sys.exit("usage: python specialize_labelled.py [BEIR_FOLDER_OR_ZIP [CROSS_ENCODER_OR_EMBEDDER]]")
logging.basicConfig(format="%(message)s")
logging.getLogger("mlr_rag.specializing").setLevel(logging.INFO)  # tells each stage, and the time that is left

corpus, teacher = (*sys.argv[1:], None, None)[:2]
corpus = corpus or made_up()[0]
result = specialize(corpus=corpus, teacher=teacher, budget="10min", output="models/labelled")
print(result)

with Retriever.open("memory:", result.model) as kb:  # the base model, where the other was not surely better
    kb.add([text for _, text in Collection.unjudged(corpus).texts()])
    question = next(iter(Collection.load(corpus).queries.values()))
    print(f"{question} -> {kb.search(question, k=1)[0].document.text}")
