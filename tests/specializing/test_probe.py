"""The general probe: its data, and what it says of models."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mlr_rag.errors import InvalidInputError
from mlr_rag.evaluation.collection import Collection
from mlr_rag.specializing.probe import GENERAL, Probe
from mlr_rag.training.mining.bm25 import BM25

COLLECTION = Collection.load(GENERAL)
CORPUS = dict(COLLECTION.texts())


class Oracle:
    """Gives a query the vector of its passage, except for some that get a neighbor's."""

    def __init__(self, wrong: int = 0) -> None:
        place = {id: number for number, id in enumerate(CORPUS)}
        self._places = {text: place[id] for id, text in CORPUS.items()}
        for number, (id, text) in enumerate(COLLECTION.queries.items()):
            (answer,) = COLLECTION.qrels[id]
            self._places[text] = (place[answer] + (number < wrong)) % len(place)

    def _encode(self, texts):
        return np.eye(len(CORPUS), dtype=np.float32)[[self._places[text] for text in texts]]

    encode_query = encode_document = _encode


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def test_every_passage_has_one_query_and_every_query_one_passage():
    answers = [document for grades in COLLECTION.qrels.values() for document in grades]
    assert sorted(answers) == sorted(CORPUS)
    assert set(map(len, COLLECTION.qrels.values())) == {1}
    assert len(CORPUS) >= 300


def test_each_subject_has_six_passages_that_can_be_confused():
    subjects = Counter(id.rsplit("-", 1)[0] for id in CORPUS)
    assert len(subjects) >= 50
    assert set(subjects.values()) == {6}


@pytest.mark.parametrize("texts", [CORPUS, COLLECTION.queries], ids=["passages", "queries"])
def test_no_text_comes_twice(texts):
    assert len({" ".join(sorted(_words(text))) for text in texts.values()}) == len(texts)


def test_passages_and_queries_have_the_length_of_what_people_write():
    assert {len(text.split()) for text in CORPUS.values()} <= set(range(25, 61))
    assert {len(text.split()) for text in COLLECTION.queries.values()} <= set(range(2, 13))


def test_no_line_of_the_files_is_unused():
    lines = (GENERAL / "queries.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["_id"] for line in lines] == list(COLLECTION.queries)


def test_shared_words_do_not_solve_it():
    found = BM25().index(CORPUS).search(list(COLLECTION.queries.values()), 1)
    solved = sum(
        grades.keys() == dict(hits).keys() for grades, hits in zip(COLLECTION.qrels.values(), found, strict=True)
    )
    assert solved / len(COLLECTION.queries) < 0.1


def test_a_perfect_model_gets_one_and_each_mistake_counts():
    probe = Probe.general()
    assert probe.measure(Oracle()) == 1
    few, many = (probe.measure(Oracle(wrong=wrong)) for wrong in (3, 33))
    assert 1 > few > many > 1 - 34 / len(CORPUS)


def test_another_probe_has_another_fingerprint(tmp_path: Path):
    other = shutil.copytree(GENERAL, tmp_path / "other")
    first, *rest = (other / "queries.jsonl").read_text("utf-8").splitlines(keepends=True)
    id = json.loads(first)["_id"]
    (other / "queries.jsonl").write_text(json.dumps({"_id": id, "text": "something else"}) + "\n" + "".join(rest))
    assert Probe(other).fingerprint != Probe.general().fingerprint


def test_a_users_own_probe_is_a_folder_or_a_zip(tmp_path: Path):
    archive = shutil.make_archive(str(tmp_path / "mine"), "zip", GENERAL)
    assert Probe(archive).fingerprint == Probe(GENERAL).fingerprint == Probe.general().fingerprint


def test_a_missing_probe_is_named(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="nowhere"):
        Probe(tmp_path / "nowhere")
