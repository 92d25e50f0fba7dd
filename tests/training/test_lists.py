import math

import pytest
import torch

from mlr_rag.errors import InvalidInputError
from mlr_rag.training.lists import Dropped, ListBatch, TrainingList, check_lists, to_dataset

GOOD = {"query": "what boils", "passages": ["water boils", "roads meet"], "scores": [2.0, -1.0]}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"query": " "}, "blank"),
        ({"query": None}, "not a text"),
        ({"passages": ["water boils"], "scores": [1.0]}, "nothing to choose between"),
        ({"passages": "water", "scores": [1.0] * 5}, "no passages"),
        ({"passages": ["water boils", ""]}, "passage 1 is blank"),
        ({"passages": ["water boils", 3]}, "passage 1 is not a text"),
        ({"passages": ["water boils", "water boils"]}, "passage 1 is passage 0 again"),
        ({"scores": [1.0]}, "scores do not fit the passages"),
        ({"scores": [1.0, math.nan]}, "scores: number 1 is not finite"),
        ({"scores": [math.inf, 0.0]}, "scores: number 0 is not finite"),
        ({"labels": [1.0, -math.inf]}, "labels: number 1 is not finite"),
        ({"labels": ["yes", "no"]}, "labels are not numbers"),
        ({"scores": None}, "nothing is known"),
    ],
)
def test_a_broken_list_is_refused_with_its_place(change, place):
    with pytest.raises(InvalidInputError, match=place):
        TrainingList(**(GOOD | change))


def test_an_error_begins_with_the_query():
    with pytest.raises(InvalidInputError, match="the list of 'what boils'"):
        TrainingList(**(GOOD | {"scores": [1.0]}))


def test_without_labels_the_first_of_the_teachers_best_is_relevant():
    assert TrainingList("q", ("a", "b", "c"), scores=(-3, -1, -1)).relevance == (0.0, 1.0, 0.0)
    assert TrainingList("q", ("a", "b"), scores=(2, 1), labels=(0, 3)).relevance == (0.0, 3.0)


def test_lists_that_teach_nothing_are_dropped_and_counted():
    lists = [
        TrainingList("kept", ("a", "b"), scores=(1, 0)),
        TrainingList("no positives", ("a", "b"), scores=(1, 0), labels=(0, 0)),
        TrainingList("alike", ("a", "b"), scores=(1, 1), labels=(1, 0)),
        TrainingList("no teacher", ("a", "b"), labels=(1, 0)),
        {"query": "short", "passages": ["a", "a"], "scores": [1, 0]},
    ]
    kept, dropped = check_lists(lists, teacher=True)
    assert [each.query for each in kept] == ["kept"]
    assert dropped == Dropped(short=1, no_positives=1, no_scores=1, equal_scores=1)
    assert dropped.total == 4


def test_a_contrastive_run_keeps_lists_that_a_teacher_cannot_rank():
    lists = [
        TrainingList("alike", ("a", "b"), scores=(1, 1), labels=(1, 0)),
        TrainingList("q", ("a", "b"), labels=(1, 0)),
    ]
    assert check_lists(lists) == (lists, Dropped())


def test_repeated_passages_leave_with_their_scores_and_labels():
    rows = [{"query": "q", "passages": ["a", "b", "a"], "scores": [3, 2, 1], "labels": [1, 0, 0]}]
    kept, dropped = check_lists(rows)
    assert kept == [TrainingList("q", ("a", "b"), scores=(3, 2), labels=(1, 0))]
    assert dropped.total == 0


@pytest.mark.parametrize("broken", [GOOD | {"scores": [1, math.nan]}, {"query": "q"}, GOOD | {"query": ""}, 5])
def test_a_broken_list_among_many_is_an_error_that_counts_it(broken):
    with pytest.raises(InvalidInputError, match="list 1"):
        check_lists([GOOD, broken])


def test_ragged_lists_survive_the_dataset_exactly():
    lists = [
        TrainingList("q", ("a", "b", "c"), scores=(0.1, 0.2, 1 / 3)),
        TrainingList("r", ("d", "e"), labels=(2.0, 0.0)),
    ]
    dataset = to_dataset(lists)
    assert dataset.column_names == ["query", "passages", "scores", "labels"]
    rows = [dataset[number] for number in range(2)]
    assert [TrainingList(**row) for row in rows] == lists


def test_no_lists_make_no_dataset():
    with pytest.raises(InvalidInputError, match="no lists"):
        to_dataset([])


def batch(labels, teacher=None):
    index = torch.tensor([[3, 0, 2], [1, 2, -1]])
    teacher = torch.tensor(teacher) if teacher else torch.full(index.shape, -math.inf)
    return ListBatch(index, teacher, torch.tensor(labels))


def test_the_positive_is_the_highest_grade_then_the_teachers_best_then_the_first():
    assert batch([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0]]).positives.tolist() == [0, 2]
    by_teacher = batch([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], [[0.0, -5.0, 9.0], [1.0, 2.0, -math.inf]])
    assert by_teacher.positives.tolist() == [2, 2]
    assert batch([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]).positives.tolist() == [0, 1]


def test_a_list_without_a_relevant_passage_has_no_positive():
    assert batch([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).positives.tolist() == [-1, 1]


def test_own_scores_and_columns_are_each_others_inverse():
    each = batch([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    scores = torch.arange(8.0).view(2, 4)
    own = each.of_lists(scores)
    assert own[0].tolist() == [3.0, 0.0, 2.0]
    assert own[1, :2].tolist() == [5.0, 6.0]
    assert each.over_columns(own, 4, fill=-1).tolist() == [[0.0, -1.0, 2.0, 3.0], [-1.0, 5.0, 6.0, -1.0]]
