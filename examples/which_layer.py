"""Which layers of a model to pool: measure them on judged documents before any training."""

import json
from pathlib import Path

from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.layer_table import table
from mlr_rag.evaluation.layers import measure_layers

corpus = {
    "paris": "Paris is the capital of France.",
    "bern": "Bern is the capital of Switzerland.",
    "water": "Water boils at 100 degrees Celsius at sea level.",
    "scurvy": "Scurvy is caused by a lack of vitamin C.",
    "lemons": "Lemons and oranges have plenty of vitamin C.",
}
queries = {
    "q1": ("Where does the French government sit?", "paris"),
    "q2": ("What do I eat against scurvy?", "lemons"),
    "q3": ("How hot is it in a kettle?", "water"),
}

# A judged collection is a folder (or zip) in the BEIR layout; yours has hundreds of queries.
Path("judged/qrels").mkdir(parents=True, exist_ok=True)
write = {
    "corpus.jsonl": [json.dumps({"_id": id, "text": text}) for id, text in corpus.items()],
    "queries.jsonl": [json.dumps({"_id": id, "text": text}) for id, (text, _) in queries.items()],
    "qrels/dev.tsv": [f"{id}\t{relevant}\t1" for id, (_, relevant) in queries.items()],
}
for name, lines in write.items():
    Path("judged", name).write_text("\n".join(lines), "utf-8")

report = measure_layers("all-MiniLM-L6-v2", Collection.load("judged", "dev"))
print(table(report))  # or: mlr-rag layers judged --model all-MiniLM-L6-v2 --plot layers.png
print(report.best)  # None: three queries can show nothing
