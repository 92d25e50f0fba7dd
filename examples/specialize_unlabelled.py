"""Specialize a model on documents without any queries: `python specialize_unlabelled.py FOLDER [TEACHER]`.

Without these, on a little of the documentation inside Python's standard library. The queries are taken out of the
documents themselves; specialize(llm=...) has a language model write better ones.
"""

import logging
import sys

from mlr_rag import specialize
from mlr_rag.stdlib_docs import collect

if len(sys.argv) > 3:
    sys.exit("usage: python specialize_unlabelled.py [FOLDER [CROSS_ENCODER_OR_EMBEDDER]]")
logging.basicConfig(format="%(message)s")
logging.getLogger("mlr_rag.specializing").setLevel(logging.INFO)  # tells each stage, and the time that is left

folder, teacher = (*sys.argv[1:], None, None)[:2]
network = [document for document in collect() if document.metadata["path"].startswith(("urllib.", "http.", "email."))]
budget = "20min" if folder else "1min"  # of which the example needs more on a slow machine
result = specialize(corpus=folder or network, teacher=teacher, budget=budget, output="models/unlabelled")
print(result)
for kind, count in result.report.data.queries.items():
    print(f"{count} queries of the kind {kind!r}")
