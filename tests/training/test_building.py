from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr_rag import Document, InvalidInputError, Retriever
from mlr_rag.testing import HashEncoder
from mlr_rag.training.lists import TrainingList
from mlr_rag.training.mining.building import Counts, build_lists, normalized, percentiles, with_scores
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.teachers.teacher import CallableTeacher

CORPUS = {id: f"text {id}" for id in "abcdefghij"}
QUERIES = {"q": "a query"}


def ranked(ids: str) -> dict[str, float]:
    return {id: 1 / rank for rank, id in enumerate(ids, 1)}


def build(
    qrels: dict[str, float] | None, candidates: str, scores: dict[str, float] | None = None, **options: Any
) -> tuple[TrainingList | None, Counts]:
    """One query's list, its passages told by their ids."""
    corpus = options.pop("corpus", CORPUS)
    lists, counts = build_lists(
        QUERIES,
        corpus,
        None if qrels is None else {"q": qrels},
        {"q": ranked(candidates)},
        None if scores is None else {"q": scores},
        **options,
    )
    return (lists[0] if lists else None), counts


def ids(made: TrainingList | None) -> str:
    assert made is not None
    return "".join(passage.removeprefix("text ") for passage in made.passages)


def test_positives_come_first_by_grade_then_candidates_in_their_order() -> None:
    made, counts = build({"c": 1, "a": 2, "d": 0}, "abcdef")
    assert ids(made) == "acbdef"
    assert made == TrainingList("a query", made.passages, None, (2, 1, 0, 0, 0, 0))
    assert counts == Counts(queries=1, lists=1)


def test_known_positives_are_never_negatives() -> None:
    made, counts = build({"a": 1, "b": 1, "c": 1}, "abcdef", positives="one")
    assert ids(made) == "adef"
    assert counts == Counts(queries=1, lists=1, positives_left_out=2)


def test_a_positive_that_the_run_missed_is_put_in_its_list() -> None:
    made, counts = build({"j": 1}, "abc")
    assert ids(made) == "jabc"
    assert counts == Counts(queries=1, lists=1, positives_added=1)


def test_positives_take_half_of_a_list_at_the_most() -> None:
    made, counts = build({"a": 1, "b": 3, "c": 2, "d": 1}, "abcdefgh", length=5)
    assert ids(made) == "bcefg"
    assert counts == Counts(queries=1, lists=1, positives_left_out=2)


def test_the_teacher_chooses_among_positives_of_one_grade() -> None:
    scores = dict.fromkeys("abcdef", 0.0) | {"c": 5.0}
    made, _ = build({"a": 1, "c": 1}, "abcdef", scores, positives="one")
    assert ids(made) == "cbdef"
    assert made is not None
    assert made.scores == (5, 0, 0, 0, 0)


def test_without_judgments_the_highest_scored_candidate_is_the_positive() -> None:
    made, counts = build(None, "abc", {"a": 1.0, "b": 7.0, "c": -2.0})
    assert made is not None
    assert (ids(made), made.scores, made.labels) == ("bac", (7, 1, -2), None)
    assert made.relevance == (1, 0, 0)
    assert counts == Counts(queries=1, lists=1)


def test_negatives_that_the_teacher_likes_are_dropped() -> None:
    scores = {"a": 10.0, "b": 7.0, "c": 6.0, "d": 5.9, "e": 0.0}  # min-max: 1, .7, .6, .59, 0
    made, counts = build({"a": 1}, "abcde", scores, max_teacher_ratio=0.6)
    assert ids(made) == "acde"
    assert counts == Counts(queries=1, lists=1, false_negatives_dropped=1)
    unjudged, _ = build(None, "abcde", scores, max_teacher_ratio=0.6)
    assert ids(unjudged) == "acde"


def test_dropping_does_not_depend_on_the_scale_of_the_teacher() -> None:
    scores = {"a": 10.0, "b": 7.0, "c": 6.5, "d": 5.9, "e": 0.0}
    moved = {id: score / 3 - 20 for id, score in scores.items()}
    for ratio in (0.55, 0.62, 0.68, 0.8):
        first, _ = build({"a": 1}, "abcde", scores, max_teacher_ratio=ratio)
        assert ids(build({"a": 1}, "abcde", moved, max_teacher_ratio=ratio)[0]) == ids(first)


def test_room_that_false_negatives_leave_is_filled() -> None:
    scores = {"a": 10.0, "b": 9.0, "c": 1.0, "d": 0.0}
    made, _ = build({"a": 1}, "abcd", scores, max_teacher_ratio=0.6, length=3)
    assert ids(made) == "acd"


def test_a_teacher_that_tells_nothing_apart_drops_nothing() -> None:
    made, counts = build({"a": 1}, "abc", dict.fromkeys("abc", 2.0), max_teacher_ratio=0.6)
    assert (ids(made), counts.false_negatives_dropped) == ("abc", 0)


def test_a_teacher_that_likes_the_positive_least_leaves_no_list() -> None:
    made, counts = build({"a": 1}, "abc", {"a": 0.0, "b": 2.0, "c": 1.0}, max_teacher_ratio=0.6)
    assert made is None
    assert counts == Counts(queries=1, too_short=1, false_negatives_dropped=2)


def test_passages_that_say_the_same_are_one() -> None:
    corpus = {"a": "Stone Bridge", "b": "stone  bridge\n", "c": "river", "d": "RIVER", "e": "ｒｉｖｅｒ", "f": "road"}
    lists, counts = build_lists(QUERIES, corpus, {"q": {"a": 1}}, {"q": ranked("abcdef")})
    assert lists[0].passages == ("Stone Bridge", "river", "road")
    assert counts == Counts(queries=1, lists=1, duplicates_dropped=3)


def test_the_twin_of_a_positive_that_is_left_out_is_no_negative() -> None:
    corpus = CORPUS | {"j": "TEXT B"}
    made, counts = build({"a": 2, "b": 1}, "jcd", positives="one", corpus=corpus)
    assert ids(made) == "acd"
    assert counts.duplicates_dropped == 1


def test_normalized_joins_case_width_and_space() -> None:
    assert normalized(" Straße\tＡ\u00a0B ") == normalized("STRASSE a b") == "strasse a b"
    assert normalized("ls -a") != normalized("ls -b")


def test_positives_that_the_corpus_lacks_are_counted() -> None:
    made, counts = build({"a": 1, "gone": 1, "blank": 1}, "abc", corpus=CORPUS | {"blank": " "})
    assert ids(made) == "abc"
    assert counts == Counts(queries=1, lists=1, positives_missing_from_corpus=2)


@pytest.mark.parametrize(
    ("qrels", "candidates", "reason", "missing"),
    [
        ({}, "abc", "without_positives", 0),
        ({"a": 0, "b": -1}, "abc", "without_positives", 0),
        ({"gone": 1}, "abc", "without_positives", 1),
        ({"a": 1}, "a", "too_short", 0),
        ({"a": 1}, "", "too_short", 0),
    ],
)
def test_a_query_without_a_list_is_counted(qrels: dict[str, float], candidates: str, reason: str, missing: int) -> None:
    made, counts = build(qrels, candidates)
    assert made is None
    assert counts == Counts(queries=1, positives_missing_from_corpus=missing, **{reason: 1})


def test_without_judgments_a_query_without_candidates_is_counted() -> None:
    assert build(None, "", {}) == (None, Counts(queries=1, without_positives=1))
    assert build(None, "a", {"a": 1.0}) == (None, Counts(queries=1, too_short=1))


def test_unjudged_and_unmined_queries_are_counted() -> None:
    queries = {"q": "a query", "blank": " ", "unjudged": "x", "unmined": "y"}
    lists, counts = build_lists(queries, CORPUS, {"q": {"a": 1}, "unmined": {"a": 1}}, {"q": ranked("ab")})
    assert len(lists) == 1
    assert counts == Counts(queries=4, lists=1, blank_queries=1, without_positives=1, too_short=1)


def test_candidates_without_a_score_are_left_out_and_counted() -> None:
    made, counts = build({"a": 1}, "abcd", {"a": 1.0, "c": 0.0})
    assert ids(made) == "ac"
    assert counts == Counts(queries=1, lists=1, unscored_dropped=2)


def test_a_positive_without_a_score_is_left_out_counted_and_told_with_the_way_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, counts = build({"a": 1, "b": 1}, "abcd", {"b": 1.0, "c": 0.0, "d": 0.0})
    assert ids(made) == "bcd"
    assert counts == Counts(queries=1, lists=1, positives_unscored=1)
    assert "1 relevant documents have no teacher score" in caplog.text
    assert "pass qrels to score_candidates" in caplog.text
    made, counts = build({"a": 1}, "abcd", {"b": 1.0, "c": 0.0, "d": 0.0})
    assert made is None
    assert counts == Counts(queries=1, without_positives=1, positives_unscored=1)


def test_the_twin_of_an_unscored_positive_is_no_negative_and_a_scored_twin_takes_its_place() -> None:
    corpus, scores = CORPUS | {"j": "TEXT A"}, {"b": 3.0, "c": 0.0, "j": 1.0}
    made, counts = build({"a": 1, "b": 1}, "jc", scores, corpus=corpus)
    assert ids(made) == "bc"
    assert (counts.positives_unscored, counts.duplicates_dropped) == (1, 1)
    made, counts = build({"a": 2, "b": 1, "j": 1}, "jc", scores, corpus=corpus)
    assert ids(made) == "bTEXT Ac"
    assert (counts.positives_unscored, counts.duplicates_dropped) == (0, 1)


def test_a_judged_query_that_was_not_mined_is_too_short_and_no_fault_of_its_positives(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queries, qrels = {"q": "x", "unmined": "y"}, {"q": {"a": 1}, "unmined": {"b": 1}}
    lists, counts = build_lists(queries, CORPUS, qrels, {"q": ranked("ab")}, {"q": {"a": 1.0, "b": 0.0}})
    assert len(lists) == 1
    assert counts == Counts(queries=2, lists=1, too_short=1)
    assert caplog.text == ""


def test_of_several_positives_the_highest_scored_says_which_negatives_are_liked() -> None:
    scores = {"a": 10.0, "b": 2.0, "c": 5.0, "d": 7.0, "e": 0.0}
    made, _ = build({"a": 1, "b": 1}, "abcde", scores, max_teacher_ratio=0.6)
    assert ids(made) == "abce"


def test_random_negatives_differ_by_seed_and_stay_the_same_for_one() -> None:
    drawn = [ids(build({"a": 1}, "abcdefghij", sampling="random", seed=seed, length=4)[0]) for seed in range(20)]
    assert len(set(drawn)) > 10
    assert drawn[3] == ids(build({"a": 1}, "abcdefghij", sampling="random", seed=3, length=4)[0])
    assert all(each == "a" + "".join(sorted(each[1:])) and len(set(each)) == 4 for each in drawn)


def test_what_is_drawn_for_a_query_does_not_depend_on_the_others() -> None:
    qrels, run = {"q": {"a": 1}, "p": {"a": 1}}, {"q": ranked("abcdefghij"), "p": ranked("abcdefghij")}
    differ = 0
    for seed in range(5):
        options: dict[str, Any] = {"sampling": "random", "length": 5, "seed": seed}
        alone = build_lists(QUERIES, CORPUS, qrels, run, **options)[0]
        both = build_lists({"p": "another", **QUERIES}, CORPUS, qrels, run, **options)[0]
        assert both[1:] == alone
        differ += both[0].passages != both[1].passages
    assert differ >= 3


def test_an_open_collection_gives_what_its_texts_give(encoder: HashEncoder) -> None:
    qrels, run = {"q": {"j": 1, "gone": 1}}, {"q": ranked("abc")}
    with Retriever.open("memory:", encoder) as kb:
        kb.add(Document(text, id) for id, text in CORPUS.items())
        assert build_lists(QUERIES, kb, qrels, run) == build_lists(QUERIES, CORPUS, qrels, run)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"length": 1}, "two passages: found length=1"),
        ({"positives": "some"}, r"unknown positives: found some, expected all \| one"),
        ({"sampling": "best"}, "unknown sampling"),
        ({"max_teacher_ratio": 0.0}, "not a ratio"),
        ({"max_teacher_ratio": 60}, "not a ratio"),
        ({"max_teacher_ratio": 0.6}, "scores are needed: max_teacher_ratio"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        build({"a": 1}, "abc", **options)


def test_neither_judgments_nor_scores_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="no positives are known"):
        build(None, "abc")


def test_a_run_of_another_corpus_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="candidate of query 'q' is not in the corpus: found z"):
        build({"a": 1}, "abz")


texts = st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(["x", "X ", "y", "z", " ", "w"]), min_size=1)


@settings(deadline=None)
@given(
    corpus=texts,
    grades=st.dictionaries(st.sampled_from("abcdefghz"), st.integers(-1, 2)),
    query=st.sampled_from(["a query", " "]),
    length=st.integers(2, 5),
    ratio=st.sampled_from([None, 0.6, 1.0]),
    positives=st.sampled_from(["all", "one"]),
    data=st.data(),
)
def test_nothing_is_lost(
    corpus: dict[str, str], grades: dict[str, int], query: str, length: int, ratio: Any, positives: Any, data: Any
) -> None:
    present = [id for id, text in corpus.items() if text.strip()]
    candidates = data.draw(st.lists(st.sampled_from(present), unique=True)) if present else []
    unscored = data.draw(st.sets(st.sampled_from(present))) if present else set()
    scores = {id: float(data.draw(st.integers(0, 4))) for id in present if id not in unscored}
    lists, counts = build_lists(
        {"q": query}, corpus, {"q": grades}, {"q": dict.fromkeys(candidates, 1.0)}, {"q": scores},
        length=length, positives=positives, max_teacher_ratio=ratio,
    )  # fmt: skip
    assert len(lists) == counts.lists
    assert counts.queries == counts.lists + counts.blank_queries + counts.without_positives + counts.too_short
    relevant = {id for id, grade in grades.items() if grade > 0}
    for made in lists:
        said = [normalized(passage) for passage in made.passages]
        assert 2 <= len(set(said)) == len(said) <= length
        known = {normalized(corpus[id]) for id in relevant.intersection(present)}
        assert all((label > 0) == (text in known) for label, text in zip(made.labels or (), said, strict=True))
        of_positives = sum(label > 0 for label in made.labels or ())
        dropped = asdict(counts)
        seen = len(relevant) + len(set(candidates) - relevant)
        left_over = seen - len(said) - sum(
            dropped[name]
            for name in ("positives_missing_from_corpus", "positives_left_out", "false_negatives_dropped",
                         "duplicates_dropped", "unscored_dropped", "positives_unscored")
        )  # fmt: skip
        assert left_over == 0 or (left_over > 0 and len(said) == length)  # what found no room
        assert 1 <= of_positives <= max(1, length // 2)


def lengths(pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [float(len(passage)) for _, passage in pairs]


def test_lists_get_the_scores_of_a_teacher() -> None:
    first = TrainingList("q", ("a", "bb", "ccc"), labels=(1, 0, 0))
    second = TrainingList("p", ("a", "dddd"), scores=(9, 9))
    with ScoreCache() as cache:
        scored = with_scores([first, second], CallableTeacher(lengths, "length"), cache)
        assert cache.asked == 5
    assert [each.scores for each in scored] == [(1, 2, 3), (1, 4)]
    assert [each.labels for each in scored] == [(1, 0, 0), None]


def test_passages_that_cannot_be_scored_are_left_out_and_lists_of_fewer_than_two() -> None:
    def skips(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [float("nan") if passage == "bb" else len(passage) for _, passage in pairs]

    teacher = CallableTeacher(skips, "length")
    teacher.skip_failures = True  # type: ignore[attr-defined]
    lists = [TrainingList("q", ("a", "bb", "ccc"), labels=(1, 0, 2)), TrainingList("p", ("a", "bb"), labels=(1, 0))]
    assert with_scores(lists, teacher) == [TrainingList("q", ("a", "ccc"), scores=(1, 3), labels=(1, 2))]


def test_a_list_of_teachers_is_fit_on_the_passages_of_the_lists_and_a_path_is_a_cache(tmp_path: Path) -> None:
    made = TrainingList("q", ("a", "bb", "ccc"), labels=(1, 0, 0))
    double = CallableTeacher(lambda pairs: [2 * score for score in lengths(pairs)], "double")
    (scored,) = with_scores([made], [CallableTeacher(lengths, "length"), double], tmp_path / "scores.db")
    assert scored.scores == pytest.approx((-(1.5**0.5), 0, 1.5**0.5))
    with ScoreCache(tmp_path / "scores.db") as cache:
        assert cache.known(double, [("q", "a"), ("q", "bb"), ("q", "ccc")]).all()


def test_percentiles_are_those_of_all_scores() -> None:
    scores = {"q": {str(value): float(value) for value in range(50)}, "p": {str(v): float(v) for v in range(50, 101)}}
    assert percentiles(scores) == (1, 99)
    assert percentiles(scores, 0, 50) == (0, 50)
    with pytest.raises(InvalidInputError, match="no scores"):
        percentiles({"q": {}})
