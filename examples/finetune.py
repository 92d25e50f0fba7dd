"""Fine-tune a model, and keep it if it surely finds more: `python finetune.py BEIR_FOLDER_OR_ZIP CROSS_ENCODER`.

Without these, on a made-up collection.
"""

import sys

from mlr_rag import MLRModel, training
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.significance import paired_randomization
from mlr_rag.training.made_up import made_up

if len(sys.argv) not in (1, 3):
    sys.exit("usage: python finetune.py [BEIR_FOLDER_OR_ZIP CROSS_ENCODER]")
path, teacher = sys.argv[1:] or made_up()
train, test = Collection.load(path, "train"), Collection.load(path, "test")
corpus = dict(train.texts())
dev = {id: train.qrels[id] for id in list(train.queries)[::4]}  # they choose the checkpoint; test queries judge it
queries = {id: text for id, text in train.queries.items() if id not in dev}

model = MLRModel.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
judge = training.RetrievalEvaluator(test.queries, test.qrels, corpus)
before = list(judge.per_query(model).values())

found = training.mine(queries, corpus, [training.Dense(model), training.BM25()], depth=50)
scores = training.score_candidates(teacher, queries, corpus, found, "scores.sqlite", qrels=train.qrels)
lists, counts = training.build_lists(queries, corpus, train.qrels, found, scores)
args = training.MLRTrainingArguments(f"run-{train.name}", num_train_epochs=5, learning_rate=1e-4)
training.MLRTrainer(model, lists, args=args, evaluator=training.RetrievalEvaluator(train.queries, dev, corpus)).train()

after = list(judge.per_query(model).values())
mean_before, mean_after, p = sum(before) / len(before), sum(after) / len(after), paired_randomization(after, before)
print(f"{counts.lists} lists; nDCG@10 of {len(after)} held-out queries: {mean_before:.3f} -> {mean_after:.3f}")
if mean_after > mean_before and p < 0.05:
    model.save(f"{train.name}-fine-tuned")
    print(f"It is better (p = {p:.2g}), and in {train.name}-fine-tuned/.")
else:
    print(f"It is not surely better (p = {p:.2g}): keep the base model.")
