"""Fine-tune a model, and keep it if it finds more: `python finetune.py BEIR_FOLDER_OR_ZIP CROSS_ENCODER`.

Without these, on a made-up collection.
"""

import sys

from mlr_rag import MLRModel, training
from mlr_rag.evaluation.collection import Collection
from mlr_rag.training.made_up import made_up

path, teacher = sys.argv[1:] or made_up()
train, test = Collection.load(path, "train"), Collection.load(path, "test")
corpus = dict(train.texts())
dev = {id: train.qrels[id] for id in list(train.queries)[::4]}  # they choose the checkpoint; test queries judge it
queries = {id: text for id, text in train.queries.items() if id not in dev}

model = MLRModel.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
judge = training.RetrievalEvaluator(test.queries, test.qrels, corpus, "test")
before = judge(model)["test_ndcg@10"]

candidates = training.mine(queries, corpus, [training.Dense(model), training.BM25()], depth=50)
scores = training.score_candidates(
    teacher, queries, corpus, candidates, training.ScoreCache("scores.sqlite"), qrels=train.qrels
)
lists, counts = training.build_lists(queries, corpus, train.qrels, candidates, scores)
args = training.MLRTrainingArguments("run", num_train_epochs=5, learning_rate=1e-4, per_device_train_batch_size=8)
training.MLRTrainer(model, lists, args=args, evaluator=training.RetrievalEvaluator(train.queries, dev, corpus)).train()

after = judge(model)["test_ndcg@10"]
print(f"{counts.lists} lists; nDCG@10 of {len(test.queries)} held-out queries: {before:.3f} -> {after:.3f}")
if after > before:
    model.save("fine-tuned")
print("It is better, and in fine-tuned/." if after > before else "It is not better: keep the base model.")
