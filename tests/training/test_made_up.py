from __future__ import annotations

from pathlib import Path

from mlr_rag.evaluation.collection import Collection
from mlr_rag.training.made_up import made_up


def test_the_collection_can_be_read_and_its_splits_share_services_but_no_query(tmp_path: Path) -> None:
    folder, _ = made_up(tmp_path / "made-up")
    train, test = Collection.load(folder, "train"), Collection.load(folder, "test")
    assert (len(train.queries), len(test.queries), len(dict(train.texts()))) == (24, 8, 32)
    assert not train.queries.keys() & test.queries.keys()
    learned = " ".join(train.queries.values())
    asked = {"billing", "login", "search", "email", "chat", "backup", "payroll", "booking"}
    assert {name for name in asked if any(name in text for text in test.queries.values())} == asked
    assert all(learned.count(name) == 3 for name in asked)


def test_its_teacher_scores_the_answer_highest(tmp_path: Path) -> None:
    folder, teacher = made_up(tmp_path)
    for split in ("train", "test"):
        collection = Collection.load(folder, split)
        corpus = dict(collection.texts())
        for id, query in collection.queries.items():
            scores = dict(zip(corpus, teacher.score([(query, text) for text in corpus.values()]), strict=True))
            assert [document for document, score in scores.items() if score == 2] == list(collection.qrels[id])
            assert sorted(set(scores.values())) == [0, 1, 2]
