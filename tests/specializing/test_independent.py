from __future__ import annotations

from mlr_rag.specializing.independent import independent_groups
from mlr_rag.specializing.material import Judged

CORPUS = "abcdefgh"
SAME = {document: document for document in CORPUS} | {"b": "a"}  # b is nearly the same as a


def groups(**relevant: str) -> list[set[str]]:
    """The groups of queries, each under the name of its words, that ask for passages of one letter."""
    queries = {name: " ".join(f"{name}{place}" for place in range(6)) for name in relevant}
    qrels = {name: dict.fromkeys(letters, 1) for name, letters in relevant.items()}
    found = independent_groups(Judged(queries, qrels), SAME)
    assert sorted(set(found.values())) == list(range(len(set(found.values()))))
    return [{name for name in found if found[name] == number} for number in sorted(set(found.values()))]


def test_queries_of_other_passages_are_groups_of_their_own() -> None:
    assert groups(one="a", two="c", three="d") == [{"one"}, {"three"}, {"two"}]


def test_queries_of_one_passage_or_its_near_duplicate_are_a_group() -> None:
    assert groups(one="a", two="a", three="b", four="c") == [{"four"}, {"one", "two", "three"}]


def test_half_of_the_relevant_passages_bind_and_less_does_not() -> None:
    assert groups(one="cd", two="de") == [{"one", "two"}]
    assert groups(one="c", two="cd") == [{"one", "two"}]
    assert groups(one="cde", two="efg") == [{"one"}, {"two"}]
    assert groups(one="c", two="cde") == [{"one"}, {"two"}]


def test_what_is_bound_through_others_is_bound() -> None:
    assert groups(one="cd", two="de", three="ef") == [{"one", "two", "three"}]


def test_near_duplicate_queries_are_a_group_whatever_they_ask_for() -> None:
    judged = Judged({"one": "to boil the egg", "two": "Boil an egg!", "three": "rivers"}, {
        "one": {"c": 1}, "two": {"d": 1}, "three": {"e": 1}
    })  # fmt: skip
    assert independent_groups(judged, SAME) == {"one": 0, "three": 1, "two": 0}


def test_a_passage_that_is_judged_irrelevant_binds_nothing() -> None:
    judged = Judged(dict.fromkeys("xy", ""), {"x": {"c": 1, "e": 0}, "y": {"d": 1, "e": 0}})
    judged.queries.update(x="lakes", y="hills")
    assert independent_groups(judged, SAME) == {"x": 0, "y": 1}
