from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from mlr_rag import Document, InvalidInputError, MLRModel, Retriever
from mlr_rag.testing import HashEncoder
from mlr_rag.training.mining import candidates as mining
from mlr_rag.training.mining.bm25 import BM25
from mlr_rag.training.mining.candidates import Dense, best, mine, rrf, score_candidates
from mlr_rag.training.mining.vectors import VectorCache
from mlr_rag.training.teachers.scores import ScoreCache, TeacherError
from mlr_rag.training.teachers.teacher import CallableTeacher

WORDS = "stone bridge river road kettle capital paris france water boils meet old sing kitchen line page number".split()


def sentences(count: int, seed: int) -> list[str]:
    drawn = random.Random(seed)
    return [" ".join(drawn.sample(WORDS, 4)) for _ in range(count)]


CORPUS = {f"d{number}": text for number, text in enumerate(sentences(40, 1))}
QUERIES = {f"q{number}": text for number, text in enumerate(sentences(12, 2))}


class Fixed:
    """A source that finds the same for every query."""

    def __init__(self, *ids: str) -> None:
        self.ids = ids

    def index(self, corpus: object) -> Fixed:
        return self

    def search(self, queries: Sequence[str], k: int) -> Iterator[list[tuple[str, float]]]:
        for _ in queries:
            yield [(id, 1.0 - rank / 100) for rank, id in enumerate(self.ids)][:k]


def test_rrf_sums_reciprocal_ranks() -> None:
    one = {"q": {"a": 9.0, "b": 5.0, "c": 1.0}}
    other = {"q": {"b": 0.9, "d": 0.8}, "p": {"a": 0.1}}
    fused = rrf([one, other])
    assert fused["q"] == pytest.approx({"b": 1 / 62 + 1 / 61, "a": 1 / 61, "d": 1 / 62, "c": 1 / 63})
    assert list(fused["q"]) == ["b", "a", "d", "c"]
    assert fused["p"] == {"a": 1 / 61}
    assert rrf([one], k=0)["q"] == {"a": 1.0, "b": 1 / 2, "c": 1 / 3}


def test_rrf_depends_neither_on_the_order_of_the_runs_nor_of_what_is_in_them() -> None:
    runs = [{"q": dict(zip("abcde", scores, strict=True))} for scores in ((5, 4, 3, 3, 1), (1, 2, 2, 8, 9))]
    expected = list(rrf(runs)["q"].items())
    for order in itertools.permutations(runs):
        shuffled = [{"q": dict(reversed(run["q"].items()))} for run in order]
        assert list(rrf(shuffled)["q"].items()) == expected


@pytest.mark.parametrize("k", [1, 3, 7, 8, 20])
def test_best_is_a_stable_sort_cut(k: int) -> None:
    for seed in range(50):
        scores = np.random.default_rng(seed).integers(0, 4, 8).astype(np.float32)
        assert best(scores, k) == np.argsort(-scores, kind="stable")[:k].tolist()


def test_dense_finds_what_comparing_everything_finds(tiny_model: MLRModel) -> None:
    run = mine(QUERIES, CORPUS, [Dense(tiny_model)], depth=5)
    scores = tiny_model.encode_query(list(QUERIES.values())) @ tiny_model.encode_document(list(CORPUS.values())).T
    for row, found in zip(scores, run.values(), strict=True):
        expected = [list(CORPUS)[place] for place in np.argsort(-row)[:5]]
        assert list(found) == expected
        assert list(found.values()) == pytest.approx([1 / (60 + rank) for rank in range(1, 6)])


def test_with_several_vectors_the_nearest_one_counts(tiny_model_dir: Path) -> None:
    model = MLRModel.from_pretrained(tiny_model_dir, layers=(1, 2, 3), pooling="multi_vector")
    run = mine(QUERIES, CORPUS, [Dense(model)], depth=5)
    layers = model.encode_document(list(CORPUS.values()))
    scores = np.einsum("qd,nmd->qnm", model.encode_query(list(QUERIES.values())), layers).max(-1)
    assert [list(found) for found in run.values()] == [
        [list(CORPUS)[place] for place in np.argsort(-row)[:5]] for row in scores
    ]


def test_few_scores_at_a_time_find_the_same(encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = mine(QUERIES, CORPUS, [Dense(encoder), BM25()], depth=7)
    monkeypatch.setattr(mining, "_SCORES", 100)
    monkeypatch.setattr(mining, "_AT_ONCE", 5)
    assert mine(QUERIES, CORPUS, [Dense(encoder), BM25()], depth=7) == whole


def test_an_open_collection_gives_what_its_texts_give(encoder: HashEncoder) -> None:
    with Retriever.open("memory:", encoder) as kb:
        kb.add(Document(text, id) for id, text in CORPUS.items())
        expected = mine(QUERIES, CORPUS, [Dense(encoder), BM25()], depth=6)
        assert mine(QUERIES, kb, [Dense(), BM25()], depth=6) == expected


def test_an_open_collection_is_not_encoded_again_for_its_own_model(encoder: HashEncoder) -> None:
    with Retriever.open("memory:", encoder) as kb:
        kb.add(Document(text, id) for id, text in CORPUS.items())
        encoder.encoded.clear()
        same = HashEncoder()
        mine(QUERIES, kb, [Dense(), Dense(encoder), Dense(same)])
        assert encoder.encoded == same.encoded == []


def test_an_open_collection_can_be_mined_with_another_model(encoder: HashEncoder) -> None:
    other = HashEncoder(version="2")
    with Retriever.open("memory:", encoder) as kb:
        kb.add(Document(text, id) for id, text in CORPUS.items())
        assert mine(QUERIES, kb, [Dense(other)], 5) == mine(QUERIES, CORPUS, [Dense(other)], 5)
        assert sorted(set(other.encoded)) == sorted(set(CORPUS.values()))


def test_any_sentence_transformer_can_mine(tiny_model_dir: Path, tiny_model: MLRModel) -> None:
    plain = SentenceTransformer(str(tiny_model_dir), device="cpu", local_files_only=True)
    assert mine(QUERIES, CORPUS, [Dense(plain)], 3) == mine(QUERIES, CORPUS, [Dense(tiny_model)], 3)


def test_a_second_run_encodes_nothing(tmp_path: Path, encoder: HashEncoder) -> None:
    with VectorCache(tmp_path / "vectors.sqlite") as cache:
        first = mine(QUERIES, CORPUS, [Dense(encoder, cache)])
        encoder.encoded.clear()
        assert mine(QUERIES, CORPUS, [Dense(encoder, cache)]) == first
    assert encoder.encoded == []


def test_the_order_of_the_input_changes_nothing(encoder: HashEncoder) -> None:
    backwards = dict(reversed(CORPUS.items()))
    twins = {f"twin {id}": text for id, text in CORPUS.items()}
    for sources in ([Dense(encoder), BM25()], [BM25()]):
        expected = mine(QUERIES, CORPUS | twins, sources, 9)
        assert mine(dict(reversed(QUERIES.items())), twins | backwards, sources, 9) == expected


def test_depth_is_kept_and_a_query_does_not_find_itself() -> None:
    run = mine({"d2": "x", "q": "x"}, CORPUS, [Fixed("d1", "d2", "d3", "d4"), Fixed("d2", "d5", "d6", "d7")], depth=3)
    assert list(run["d2"]) == ["d1", "d5", "d3"]
    assert list(run["q"]) == ["d2", "d1", "d5"]


def test_a_query_finds_the_document_that_is_numbered_like_it_where_the_judgments_ask_for_it() -> None:
    sources, qrels = [Fixed("d1", "d2", "d3")], {"d2": {"d2": 1}, "d1": {"d2": 1, "d1": 0}}
    run = mine({"d2": "x", "d1": "x"}, CORPUS, sources, depth=3, qrels=qrels)
    assert {query: list(found) for query, found in run.items()} == {"d2": ["d1", "d2", "d3"], "d1": ["d2", "d3"]}


def test_a_query_that_is_a_document_still_finds_its_twin(encoder: HashEncoder) -> None:
    run = mine({"d1": "a stone"}, {"d1": "a stone", "d2": "a stone", "d3": "river"}, [Dense(encoder)], depth=1)
    assert list(run["d1"]) == ["d2"]


def test_blank_documents_are_no_candidates_and_blank_queries_have_none(encoder: HashEncoder) -> None:
    run = mine({"q1": "stone", "q2": " "}, {"d1": "stone", "d2": " \n", "d3": ""}, [Dense(encoder), BM25()])
    assert {query: list(found) for query, found in run.items()} == {"q1": ["d1"], "q2": []}


@pytest.mark.parametrize(
    ("queries", "corpus", "problem"),
    [
        (["q"], CORPUS, "no query texts: found list"),
        ({"q": 3}, CORPUS, "query 'q' is not a text: found 3"),
        (QUERIES, {"d1": 3}, "document 'd1' is not a text"),
        (QUERIES, {3: "x"}, "document 3 is not a text"),
        (QUERIES, {}, "no documents"),
        (QUERIES, {"d1": " "}, "no documents"),
        (QUERIES, "corpus", "no corpus"),
    ],
)
def test_bad_input_is_named(queries: object, corpus: object, problem: str, encoder: HashEncoder) -> None:
    with pytest.raises(InvalidInputError, match=problem):
        mine(queries, corpus, [Dense(encoder)])  # type: ignore[arg-type]


def test_nothing_to_mine_with_is_an_error(encoder: HashEncoder) -> None:
    with pytest.raises(InvalidInputError, match=r"expected Dense\(model\)"):
        mine(QUERIES, CORPUS, [Dense()])
    for sources, depth in (([], 5), ([Dense(encoder)], 0)):
        with pytest.raises(InvalidInputError, match="nothing to mine"):
            mine(QUERIES, CORPUS, sources, depth)


def overlap(pairs: Sequence[tuple[str, str]]) -> list[float]:
    return [float(len(set(query.split()) & set(passage.split()))) for query, passage in pairs]


def test_candidates_and_missed_positives_are_scored_best_first() -> None:
    queries = {"q": "stone bridge river"}
    corpus = {"a": "river", "b": "stone bridge river", "c": "road", "d": "stone bridge", "e": "stone"}
    run = {"q": {"c": 0.9, "e": 0.8, "a": 0.7, "b": 0.6}}
    teacher = CallableTeacher(overlap, "overlap")
    assert list(score_candidates(teacher, queries, corpus, run)["q"].items()) == [
        ("b", 3.0), ("a", 1.0), ("e", 1.0), ("c", 0.0),
    ]  # fmt: skip
    qrels = {"q": {"d": 1, "e": 1, "gone": 1, "a": 0}}
    assert score_candidates(teacher, queries, corpus, run, depth=1, qrels=qrels) == {
        "q": {"d": 2.0, "e": 1.0, "c": 0.0}
    }
    assert score_candidates(teacher, queries, corpus, {"q": {}}) == {"q": {}}


def test_a_pair_is_asked_for_once(tmp_path: Path) -> None:
    run = mine(QUERIES, CORPUS, [BM25()], depth=10)
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        few = score_candidates(CallableTeacher(overlap, "overlap"), QUERIES, CORPUS, run, cache, depth=4)
        asked = cache.asked
        score_candidates(CallableTeacher(overlap, "overlap"), QUERIES, CORPUS, run, cache, depth=6)
        assert (asked, cache.asked) == (sum(map(len, few.values())), len({*_pairs(run, 6)}))


def test_a_cache_may_be_told_by_its_path(tmp_path: Path, encoder: HashEncoder) -> None:
    first = mine(QUERIES, CORPUS, [Dense(encoder, tmp_path / "vectors.db")], depth=3)
    encoder.encoded.clear()
    assert mine(QUERIES, CORPUS, [Dense(encoder, str(tmp_path / "vectors.db"))], depth=3) == first
    assert encoder.encoded == []
    score_candidates(CallableTeacher(overlap, "overlap"), QUERIES, CORPUS, first, str(tmp_path / "scores.db"))
    with ScoreCache(tmp_path / "scores.db") as cache:
        assert cache.known(CallableTeacher(overlap, "overlap"), list(_pairs(first, 3))).all()


def test_of_a_list_of_teachers_the_scores_are_the_mean_on_one_scale_and_the_members_are_asked_once(
    tmp_path: Path,
) -> None:
    run = mine(QUERIES, CORPUS, [BM25()], depth=5)
    teachers = [
        CallableTeacher(overlap, "overlap"),
        CallableTeacher(lambda pairs: [100.0 * len(passage) for _, passage in pairs], "length"),
    ]
    with ScoreCache(tmp_path / "scores.db") as cache:
        found = score_candidates(teachers, QUERIES, CORPUS, run, cache)
        asked = cache.asked
        assert score_candidates(teachers, QUERIES, CORPUS, run, cache) == found
        assert cache.asked == asked
    pairs = list(_pairs(run, 5))
    rows = [(values - values.mean()) / values.std() for values in (teacher.score(pairs) for teacher in teachers)]
    expected = dict(zip(pairs, np.mean(rows, axis=0), strict=True))
    for query, of_query in found.items():
        for id, score in of_query.items():
            assert score == pytest.approx(expected[QUERIES[query], CORPUS[id]])


def test_what_a_teacher_skips_is_left_unscored_and_counted() -> None:
    teacher = CallableTeacher(lambda pairs: [float("nan") if text == "b" else 1.0 for _, text in pairs], "skips")
    teacher.skip_failures = True  # type: ignore[attr-defined]
    cache = ScoreCache()
    assert score_candidates(teacher, {"q": "x"}, {"1": "a", "2": "b"}, {"q": {"1": 1.0, "2": 0.5}}, cache) == {
        "q": {"1": 1.0}
    }
    assert (cache.skipped, cache.count()) == (1, 1)


def _pairs(run: mining.Run, depth: int) -> Iterator[tuple[str, str]]:
    return ((QUERIES[query], CORPUS[id]) for query, found in run.items() for id in list(found)[:depth])


def test_what_a_failing_teacher_has_scored_is_kept(tmp_path: Path) -> None:
    def fails(pairs: Sequence[tuple[str, str]]) -> list[float]:
        if ("stone", "river") in pairs:
            raise RuntimeError("no more credit")
        return overlap(pairs)

    queries, corpus = {"q": "stone"}, {"a": "stone bridge", "b": "river"}
    run = {"q": {"a": 1.0, "b": 0.5}}
    teacher = CallableTeacher(fails, "overlap")
    teacher.batch = 1  # type: ignore[attr-defined]
    with ScoreCache(tmp_path / "scores.sqlite") as cache:
        with pytest.raises(TeacherError, match="no more credit"):
            score_candidates(teacher, queries, corpus, run, cache)
        assert score_candidates(CallableTeacher(overlap, "overlap"), queries, corpus, run, cache)
        assert cache.asked == 2


def test_texts_come_from_an_open_collection_as_well(encoder: HashEncoder) -> None:
    run = mine(QUERIES, CORPUS, [BM25()], depth=5)
    teacher = CallableTeacher(overlap, "overlap")
    with Retriever.open("memory:", encoder) as kb:
        kb.add(Document(text, id) for id, text in CORPUS.items())
        assert score_candidates(teacher, QUERIES, kb, run) == score_candidates(teacher, QUERIES, CORPUS, run)


def test_a_run_of_other_queries_or_documents_is_refused() -> None:
    teacher = CallableTeacher(overlap, "overlap")
    with pytest.raises(InvalidInputError, match="not among the queries: found q99"):
        score_candidates(teacher, QUERIES, CORPUS, {"q99": {}})
    with pytest.raises(InvalidInputError, match="candidate of query 'q1' is not in the corpus: found gone"):
        score_candidates(teacher, QUERIES, CORPUS, {"q1": {"gone": 1.0}})
