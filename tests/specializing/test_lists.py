from __future__ import annotations

import numpy as np

from mlr_rag.specializing.lists import make_entries
from mlr_rag.specializing.material import Judged
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.teachers.teacher import CallableTeacher

CORPUS = {f"d{n}": f"text {n}" for n in range(10)}
JUDGED = Judged({"q": "a question", "r": "another"}, {"q": {"d0": 1, "d1": 2, "d2": 0}, "r": {"d3": 1}})
RUN = {"q": {f"d{n}": 1 - n / 10 for n in range(10)}, "r": {"d4": 0.9, "d3": 0.8, "d5": 0.7}}


def test_each_relevant_passage_has_a_list_in_which_no_other_one_is():
    lists, counts = make_entries(JUDGED, RUN, CORPUS).lists({}, 4)
    assert [(each.query, each.passages) for each in lists] == [
        ("a question", ("text 1", "text 2", "text 3", "text 4")),
        ("a question", ("text 0", "text 2", "text 3", "text 4")),
        ("another", ("text 3", "text 4", "text 5")),
    ]
    assert [each.labels[0] for each in lists] == [2, 1, 1]
    assert counts["lists"] == 3


def test_of_a_query_with_many_relevant_passages_the_best_four_have_lists():
    judged = Judged({"q": "a question"}, {"q": {f"d{n}": 1 + (n == 7) for n in range(8)}})
    lists, _ = make_entries(judged, RUN, CORPUS).lists({}, 4)
    assert [each.passages[0] for each in lists] == ["text 7", "text 0", "text 1", "text 2"]
    assert all(set(each.passages[1:]) == {"text 8", "text 9"} for each in lists)


def test_what_is_held_out_is_in_no_list():
    held = frozenset({"d1", "d4"})
    lists, _ = make_entries(JUDGED, RUN, CORPUS, held).lists({}, 20)
    assert not {"text 1", "text 4"} & {passage for each in lists for passage in each.passages}
    assert len(lists) == 2


def test_a_passage_without_the_querys_own_words_stands_for_its_document():
    lists, _ = make_entries(JUDGED, RUN, CORPUS, passages={"r": "the rest"}).lists({}, 3)
    assert lists[-1].passages == ("the rest", "text 4", "text 5")


def test_entries_that_were_scored_have_scores_and_the_others_are_there_without():
    def score(pairs):
        return [float(text.rpartition(" ")[2]) for _, text in pairs]

    entries = make_entries(JUDGED, RUN, CORPUS)
    teacher = CallableTeacher(score, "number")
    scores = entries.score(teacher, ScoreCache(), ["q\t0"], depth=3)
    lists, _ = entries.lists(scores, 5)
    with_scores = [each for each in lists if each.scores is not None]
    assert len(lists) == 3
    assert [each.passages for each in with_scores] == [("text 1", "text 2", "text 3", "text 4")]
    assert np.array_equal(with_scores[0].scores, [1, 2, 3, 4])
