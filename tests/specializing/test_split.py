from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr_rag.errors import InvalidInputError
from mlr_rag.specializing.drawing import size_of
from mlr_rag.specializing.material import Judged
from mlr_rag.specializing.split import Split, split


def made(files: int, passages: int, asked: int = 1) -> tuple[Judged, dict[str, str], dict[str, str]]:
    """Files of passages, each with `asked` queries that it alone is relevant to."""
    corpus = {
        f"file{file}#{place}": f"passage {place} of file {file}: " + " ".join(f"w{file}x{place}x{n}" for n in range(6))
        for file in range(files)
        for place in range(passages)
    }
    queries, qrels = {}, {}
    for place, document in enumerate(corpus):
        for number in range(asked):
            queries[f"q{place}-{number}"] = f"ask{number}x{place} about topic{place}x{number}"
            qrels[f"q{place}-{number}"] = {document: 1}
    return Judged(queries, qrels), corpus, {id: id.partition("#")[0] for id in corpus}


def alone(corpus: dict[str, str]) -> dict[str, str]:
    return {id: id for id in corpus}


def sizes(parts: Split) -> tuple[int, int, int]:
    return len(parts.train.queries), len(parts.dev.queries), len(parts.test.queries)


def relevant(judged: Judged) -> set[str]:
    return {document for grades in judged.qrels.values() for document, grade in grades.items() if grade > 0}


def test_dev_and_test_are_fifteen_percent_each_between_3_and_300() -> None:
    assert [size_of(queries) for queries in (9, 20, 100, 1000, 2000, 9000)] == [3, 3, 15, 150, 300, 300]
    judged, corpus, _ = made(100, 1)
    parts = split({"all": judged}, corpus, alone(corpus))
    assert sizes(parts) == (70, 15, 15)
    assert parts.train.queries | parts.dev.queries | parts.test.queries == judged.queries


def test_what_is_relevant_to_a_drawn_query_is_held_with_its_file() -> None:
    judged, corpus, parents = made(20, 5, 2)
    parts = split({"all": judged}, corpus, parents)
    files = {parents[id] for side in (parts.dev, parts.test) for id in relevant(side)}
    assert parts.held_documents == {id for id in corpus if parents[id] in files}
    assert not files & {parents[id] for id in relevant(parts.train)}
    assert parts.leaks.by == "parent"
    assert parts.leaks.shared == {"dev": 0, "test": 0}
    assert (parts.leaks.judgments_dropped, parts.leaks.queries_dropped) == (0, 0)


def test_near_duplicates_of_held_passages_are_held_though_nobody_judged_them() -> None:
    judged, corpus, _ = made(100, 1)
    copies = {f"copy of {id}": text.upper() + "!" for id, text in corpus.items()}
    parts = split({"all": judged}, corpus | copies, alone(corpus | copies))
    drawn = relevant(parts.dev) | relevant(parts.test)
    assert parts.held_documents == drawn | {f"copy of {id}" for id in drawn}
    assert parts.leaks.near_duplicates == 200


def test_in_one_file_the_passage_and_its_neighbors_are_held() -> None:
    judged, corpus, parents = made(1, 120)
    parts = split({"all": judged}, corpus, parents)
    numbers = {int(id.partition("#")[2]) for side in (parts.dev, parts.test) for id in relevant(side)}
    near = {number + step for number in numbers for step in (-1, 0, 1)}
    assert parts.leaks.by == "passage"
    assert parts.held_documents == {f"file0#{number}" for number in near if 0 <= number < 120}
    assert not parts.held_documents & relevant(parts.train)
    assert parts.leaks.queries_dropped == 120 - sum(sizes(parts)) > 0


def test_where_passages_cannot_be_held_queries_are_and_what_is_shared_is_counted() -> None:
    judged, corpus, _ = made(40, 1)
    dense = Judged(judged.queries, {query: dict.fromkeys(corpus, 1) for query in judged.queries})
    parts = split({"all": dense}, corpus, alone(corpus))
    assert parts.held_documents == frozenset()
    assert parts.leaks.by == "query"
    assert parts.leaks.relevant == parts.leaks.shared == {"dev": 40, "test": 40}
    assert sizes(parts) == (28, 6, 6)
    assert "40 of 40 test passages" in str(parts.leaks)


def test_queries_of_one_passage_stay_together() -> None:
    judged, corpus, _ = made(60, 1, 3)
    parts = split({"all": judged}, corpus, alone(corpus))
    assert parts.leaks.queries_dropped == 0
    for side in (parts.train, parts.dev, parts.test):
        assert len(side.queries) == 3 * len(relevant(side))


def test_no_family_of_queries_is_a_whole_side_where_breaking_it_is_cheap() -> None:
    judged, corpus, _ = made(600, 1)
    qrels = dict(judged.qrels)
    for query in list(qrels)[:90]:  # as many as a side has
        qrels[query] = {"file0#0": 1}
    for seed in range(5):
        parts = split({"all": Judged(judged.queries, qrels)}, corpus, alone(corpus), seed)
        for side in (parts.dev, parts.test):
            assert sum("file0#0" in grades for grades in side.qrels.values()) < 90


def test_judged_irrelevant_documents_are_neither_held_nor_lost() -> None:
    judged, corpus, _ = made(60, 1)
    qrels = {query: grades | {"file0#0": 0} for query, grades in judged.qrels.items() if query != "q0-0"}
    queries = {query: judged.queries[query] for query in qrels}
    parts = split({"all": Judged(queries, qrels)}, corpus, alone(corpus))
    assert "file0#0" not in parts.held_documents
    assert all(grades["file0#0"] == 0 for grades in parts.train.qrels.values())


def test_dev_queries_of_the_users_that_say_the_same_as_a_test_query_are_dropped() -> None:
    judged, corpus, _ = made(30, 1)
    ids = list(judged.queries)
    given = {"train": judged.only(ids[:18]), "dev": judged.only(ids[18:25]), "test": judged.only(ids[23:])}
    parts = split(given, corpus, alone(corpus))
    assert set(parts.dev.queries) == set(ids[18:23])
    assert parts.test == given["test"]
    assert parts.leaks.near_queries == 2


def test_given_splits_are_kept_and_training_queries_that_say_the_same_are_dropped() -> None:
    judged, corpus, _ = made(30, 1)
    ids = list(judged.queries)
    given = {"train": judged.only(ids[:20]), "dev": judged.only(ids[20:25]), "test": judged.only(ids[25:])}
    text = given["test"].queries[min(given["test"].queries)]
    given["train"] = replace(given["train"], queries=given["train"].queries | {ids[0]: text.upper() + "?"})
    given["dev"].qrels[min(given["dev"].qrels)][next(iter(given["train"].qrels[ids[1]]))] = 1
    parts = split(given, corpus, alone(corpus))
    assert (parts.dev, parts.test) == (given["dev"], given["test"])
    assert set(parts.train.queries) == set(ids[1:20])
    assert parts.held_documents == frozenset()
    assert (parts.leaks.by, parts.leaks.near_queries) == ("given", 1)
    assert (parts.leaks.relevant, parts.leaks.shared) == ({"dev": 6, "test": 5}, {"dev": 1, "test": 0})


def test_a_dev_split_that_is_missing_is_drawn_from_training() -> None:
    judged, corpus, _ = made(120, 1)
    ids = list(judged.queries)
    given = {"train": judged.only(ids[:100]), "test": judged.only(ids[100:])}
    parts = split(given, corpus, alone(corpus))
    assert parts.test == given["test"]
    assert sizes(parts) == (85, 15, 20)
    assert parts.held_documents == relevant(parts.dev)


@pytest.mark.parametrize(("common", "by"), [(10, "test"), (3, "passage")])
def test_a_missing_dev_split_shares_passages_with_training_where_the_test_does(common: int, by: str) -> None:
    judged, corpus, _ = made(100, 1, 2)
    ids = list(judged.queries)  # two for each passage
    known, unknown = ids[1 : 2 * common : 2], ids[160 : 160 + 2 * (20 - common)]
    train = [id for id in ids if id not in known and id not in unknown]
    given = {"train": judged.only(train), "test": judged.only(known + unknown[::2])}
    parts = split(given, corpus, alone(corpus))
    assert parts.leaks.by == by
    assert bool(parts.held_documents) == (by == "passage")
    assert (parts.leaks.shared["dev"] > 0) == (by == "test")


def test_splits_may_name_their_queries_alike() -> None:
    judged, corpus, _ = made(24, 1)
    parts = list(judged.queries)
    sides = {}
    for place, side in enumerate(("train", "dev", "test")):
        chosen = parts[8 * place : 8 * place + 8]
        sides[side] = Judged(
            {str(number): judged.queries[id] for number, id in enumerate(chosen)},
            {str(number): judged.qrels[id] for number, id in enumerate(chosen)},
        )
    assert sizes(split(sides, corpus, alone(corpus))) == (8, 8, 8)


def test_without_queries_to_train_on_the_remedy_is_to_generate_them() -> None:
    judged, corpus, _ = made(10, 1)
    for forms in ({}, {"test": judged}, {"all": judged, "test": judged}):
        with pytest.raises(InvalidInputError, match="generate"):
            split(forms, corpus, alone(corpus))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_fewer_than_nine_queries_are_refused(count: int) -> None:
    judged, corpus, _ = made(20, 1)
    with pytest.raises(InvalidInputError, match="too few different queries"):
        split({"all": judged.only(list(judged.queries)[:count])}, corpus, alone(corpus))


def test_nine_queries_are_enough_and_nine_that_say_the_same_are_not() -> None:
    judged, corpus, _ = made(9, 1)
    assert sizes(split({"all": judged}, corpus, alone(corpus))) == (3, 3, 3)
    with pytest.raises(InvalidInputError, match="too few different queries"):
        split({"all": Judged(dict.fromkeys(judged.queries, "the same"), judged.qrels)}, corpus, alone(corpus))


def test_test_queries_of_one_passage_are_one_group_and_those_of_one_file_are_not() -> None:
    judged, corpus, parents = made(100, 2, 3)
    parts = split({"all": judged}, corpus, parents)
    assert parts.leaks.by == "parent"
    assert parts.test_groups.keys() == parts.test.queries.keys()
    asked = {query: next(iter(parts.test.qrels[query])) for query in parts.test.queries}
    assert len(set(parts.test_groups.values())) == len(set(asked.values())) == len(asked) / 3
    assert len({(asked[query], group) for query, group in parts.test_groups.items()}) == len(asked) / 3


def test_splits_that_were_given_have_groups_as_well() -> None:
    judged, corpus, _ = made(30, 1)
    ids = list(judged.queries)
    given = {"train": judged.only(ids[:20]), "dev": judged.only(ids[20:25]), "test": judged.only(ids[25:])}
    given["test"].qrels[ids[25]] = given["test"].qrels[ids[26]]
    groups = split(given, corpus, alone(corpus)).test_groups
    assert groups[ids[25]] == groups[ids[26]]
    assert sorted(set(groups.values())) == [0, 1, 2, 3]


def test_a_small_corpus_with_several_queries_a_passage_gives_enough_groups_for_a_test() -> None:
    judged, corpus, _ = made(33, 1, 3)
    for seed in range(5):
        parts = split({"all": judged}, corpus, alone(corpus), seed)
        assert len(set(parts.test_groups.values())) >= 6
        assert 2 * len(parts.train.queries) >= len(judged.queries)


WORDS = [f"word{number}" for number in range(12)]


@st.composite
def collections(draw: st.DrawFn) -> tuple[Judged, dict[str, str], dict[str, str]]:
    """Few words, so that near-duplicates are many; passages in files; queries with several relevant passages."""
    texts = st.lists(st.sampled_from(WORDS), min_size=3, max_size=7, unique=True).map(" ".join)
    corpus = {f"d{place}": text for place, text in enumerate(draw(st.lists(texts, min_size=12, max_size=60)))}
    files = draw(st.integers(1, len(corpus)))
    parents = {id: f"file{place * files // len(corpus)}" for place, id in enumerate(corpus)}
    queries = {f"q{place}": text for place, text in enumerate(draw(st.lists(texts, min_size=9, max_size=50)))}
    one = st.dictionaries(st.sampled_from(sorted(corpus)), st.integers(0, 2), min_size=1, max_size=3)
    qrels = {query: draw(one) for query in queries}
    for grades in qrels.values():
        grades[min(grades)] = 1
    return Judged(queries, qrels), corpus, parents


def jaccard(one: str, other: str) -> float:
    a, b = set(one.split()), set(other.split())
    return len(a & b) / len(a | b)


@settings(max_examples=40, deadline=None)
@given(collections(), st.integers(0, 3))
def test_nothing_leaks_that_comparing_everything_with_everything_finds(
    material: tuple[Judged, dict[str, str], dict[str, str]], seed: int
) -> None:
    judged, corpus, parents = material
    try:
        parts = split({"all": judged}, corpus, parents, seed)
    except InvalidInputError:
        return
    train, *held_out = sides = [parts.train, parts.dev, parts.test]
    for place, side in enumerate(sides):
        assert len(side.queries) >= 3
        assert side.queries.items() <= judged.queries.items()
        assert all(any(grade > 0 for grade in grades.values()) for grades in side.qrels.values())
        for other in sides[:place]:
            assert all(jaccard(a, b) < 0.8 for a in side.queries.values() for b in other.queries.values())
    assert all(side.qrels[query] == judged.qrels[query] for side in held_out for query in side.queries)
    order = list(corpus)
    for document in relevant(parts.dev) | relevant(parts.test):
        place = order.index(document)
        near = {other for other in corpus if jaccard(corpus[document], corpus[other]) >= 0.8}
        near |= {other for other in order[max(0, place - 1) : place + 2] if parents[other] == parents[document]}
        if parts.leaks.by == "parent":
            near |= {other for other in corpus if parents[other] == parents[document]}
        if parts.leaks.by != "query":
            assert near <= parts.held_documents
    assert not parts.held_documents & {document for grades in train.qrels.values() for document in grades}
    if parts.leaks.by != "query":
        assert parts.leaks.shared == {"dev": 0, "test": 0}
    else:
        assert parts.held_documents == frozenset()
        for side in ("dev", "test"):
            there = relevant(getattr(parts, side))
            assert parts.leaks.relevant[side] == len(there)
            assert parts.leaks.shared[side] >= len(there & relevant(train))


@settings(max_examples=15, deadline=None)
@given(collections(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    material: tuple[Judged, dict[str, str], dict[str, str]], seed: int, chance: random.Random
) -> None:
    judged, corpus, parents = material

    def shuffled(mapping: dict[str, object]) -> dict[str, object]:
        items = list(mapping.items())
        chance.shuffle(items)
        return dict(items)

    def outcome(judged: Judged, corpus: dict[str, str], parents: dict[str, str]) -> Split | str:
        try:
            return split({"all": judged}, corpus, parents, seed)
        except InvalidInputError as problem:
            return str(problem)

    again = outcome(Judged(shuffled(judged.queries), shuffled(judged.qrels)), shuffled(corpus), shuffled(parents))
    assert again == outcome(judged, corpus, parents)


def test_another_seed_draws_other_queries() -> None:
    judged, corpus, _ = made(100, 1)
    drawn = {frozenset(split({"all": judged}, corpus, alone(corpus), seed).test.queries) for seed in range(3)}
    assert len(drawn) == 3
