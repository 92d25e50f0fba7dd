from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import pytest

from mlr_rag import InvalidInputError, MLRModel, Retriever
from mlr_rag.evaluation.collection import Collection
from mlr_rag.evaluation.metrics import evaluate, mean_metrics, query_metrics

FILES = {
    "corpus.jsonl": [
        {"_id": "d1", "title": "Water", "text": "boils in the kettle"},
        {"_id": "d2", "title": "", "text": "the old road"},
        {"_id": "d3", "text": "two stone bridges cross the river"},
        {"_id": "d4", "title": "", "text": " "},
    ],
    "queries.jsonl": [
        {"_id": "q1", "text": "Water boils in the kettle"},
        {"_id": "q2", "text": "the old road"},
        {"_id": "q3", "text": "never judged"},
        {"_id": "q4", "text": "only judged irrelevant"},
    ],
}
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td2\t1\nq4\td1\t0\n"


def content() -> dict[str, str]:
    members = {name: "\n".join(map(json.dumps, lines)) + "\n" for name, lines in FILES.items()}
    return members | {"qrels/test.tsv": QRELS}


def folder(path: Path, **changed: str | None) -> Path:
    (path / "qrels").mkdir(parents=True)
    for name, text in (content() | changed).items():
        if text is not None:
            (path / name).write_text(text)
    return path


def archive(path: Path, prefix: str, **changed: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in (content() | changed).items():
            file.writestr(prefix + name, text)
    return path


@pytest.mark.parametrize("prefix", [None, "", "tiny/", "../../tiny/"])
def test_a_folder_and_an_archive_hold_the_same_collection(tmp_path: Path, prefix: str | None) -> None:
    place = folder(tmp_path / "tiny") if prefix is None else archive(tmp_path / "tiny.zip", prefix)
    before = sorted(tmp_path.rglob("*"))
    found = Collection.load(place)
    assert (found.name, found.split, found.judgments) == ("tiny", "test", 3)
    assert found.queries == {"q1": "Water boils in the kettle", "q2": "the old road"}
    assert found.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}
    texts = {document.id: document.text for document in found.documents()}
    assert texts == {
        "d1": "Water boils in the kettle",
        "d2": "the old road",
        "d3": "two stone bridges cross the river",
    }
    assert len(list(found.texts())) == 4
    assert sorted(tmp_path.rglob("*")) == before  # nothing is unpacked


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"corpus.jsonl": None}, "has no corpus.jsonl"),
        ({"qrels/test.tsv": None}, "has no qrels/test.tsv"),
        ({"qrels/test.tsv": "q1\td1\n"}, "qrels/test.tsv line 1 is broken"),
        ({"qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\tgood\n"}, "qrels/test.tsv line 2 is broken"),
        ({"qrels/test.tsv": "q1\td1\t0\n"}, "no query has a positive judgment"),
        ({"queries.jsonl": '{"_id": "q1", "text": "x"}\n'}, "1 missing, such as q2"),
        ({"queries.jsonl": '{"_id": "q1"}\n'}, "queries.jsonl line 1 is broken"),
        ({"corpus.jsonl": '{"_id": "d1", "text": "x"}\n{"_id": "d2",'}, "corpus.jsonl line 2 is broken"),
        ({"corpus.jsonl": '["d1"]'}, "corpus.jsonl line 1 is broken"),
        ({"corpus.jsonl": '{"_id": "d1", "text": 3}'}, "corpus.jsonl line 1 is broken"),
    ],
)
def test_what_is_missing_or_broken_is_named(tmp_path: Path, changed: dict[str, str | None], problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        list(Collection.load(folder(tmp_path / "c", **changed)).documents())


def test_a_missing_split_names_those_that_are_there(tmp_path: Path) -> None:
    for place in (folder(tmp_path / "c"), archive(tmp_path / "c.zip", "c/")):
        with pytest.raises(InvalidInputError, match=r"has no qrels/dev.tsv.* There are the splits test\."):
            Collection.load(place, "dev")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    whole = archive(tmp_path / "c.zip", "c/").read_bytes()
    cut, flipped, other = tmp_path / "cut.zip", tmp_path / "flipped.zip", tmp_path / "other.zip"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInputError, match=r"cut.zip is not a collection"):
        Collection.load(cut)
    place = whole.index(b"c/corpus.jsonl") + len("c/corpus.jsonl") + 20
    flipped.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
    with pytest.raises(InvalidInputError, match=r"corpus.jsonl cannot be read"):
        list(Collection.load(flipped).documents())
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("readme.txt", "nothing")
    with pytest.raises(InvalidInputError, match="not one collection"):
        Collection.load(other)
    with pytest.raises(InvalidInputError, match="no collection at"):
        Collection.load(tmp_path / "nowhere.zip")


def test_the_measures_are_those_of_trec_eval() -> None:
    qrels = {"a": {"x": 2, "y": 1, "z": 0}, "b": {"x": 1}, "c": {"y": 1}}
    run = {"a": {"z": 0.9, "x": 0.8, "w": 0.7, "y": 0.6}, "b": {"x": 0.5, "y": 0.4}}  # nothing was found for c
    gain = 2 / math.log2(3) + 1 / math.log2(5)
    ndcg = gain / (2 + 1 / math.log2(3))
    assert query_metrics(qrels, run) == {
        "ndcg@10": pytest.approx({"a": ndcg, "b": 1.0, "c": 0.0}),
        "recall@100": {"a": 1.0, "b": 1.0, "c": 0.0},
        "mrr@10": {"a": 0.5, "b": 1.0, "c": 0.0},
    }
    assert mean_metrics(qrels, run) == pytest.approx({"ndcg@10": (ndcg + 1) / 3, "recall@100": 2 / 3, "mrr@10": 0.5})


def test_mrr_looks_no_further_than_ten() -> None:
    run = {"q": {f"d{place:02}": 1 - place / 100 for place in range(20)}}
    assert mean_metrics({"q": {"d09": 1}}, run)["mrr@10"] == pytest.approx(0.1)
    assert mean_metrics({"q": {"d10": 1}}, run)["mrr@10"] == 0
    assert mean_metrics({"q": {"d10": 1}}, run)["recall@100"] == 1


def test_a_retriever_is_evaluated(tmp_path: Path, tiny_model: MLRModel) -> None:
    collection = Collection.load(folder(tmp_path / "c"))
    with Retriever.open("memory:", tiny_model) as kb:
        found = evaluate(kb, collection)
        assert found.metrics == pytest.approx({"ndcg@10": 1, "recall@100": 1, "mrr@10": 1})
        assert (found.documents, found.blank, found.queries, found.judgments) == (4, 1, 2, 3)
        assert evaluate(kb, collection).metrics == found.metrics  # over what the first one left there


def test_queries_and_documents_that_are_numbered_alike_are_found(tmp_path: Path, tiny_model: MLRModel) -> None:
    place = folder(tmp_path / "c")
    texts = ["the old stone bridge", "water in the kettle", "paris is in france"]
    for name in ("corpus", "queries"):
        lines = (json.dumps({"_id": str(number), "text": text}) for number, text in enumerate(texts))
        (place / f"{name}.jsonl").write_text("\n".join(lines))
    rows = [f"{number}\t{number}\t1" for number in range(3)]
    (place / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    with Retriever.open("memory:", tiny_model) as kb:
        assert evaluate(kb, Collection.load(place)).metrics["ndcg@10"] == pytest.approx(1)


def test_a_collection_with_other_documents_is_not_touched(tmp_path: Path, tiny_model: MLRModel) -> None:
    with Retriever.open("memory:", tiny_model) as kb:
        kb.add("my own note")
        with pytest.raises(InvalidInputError, match="1 others"):
            evaluate(kb, Collection.load(folder(tmp_path / "c")))
        assert kb.count() == 1
