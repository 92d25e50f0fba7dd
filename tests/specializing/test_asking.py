"""Where generated queries come from, in what time, and what is said where there are too few."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from mlr_rag.errors import InvalidInputError, LanguageModelError
from mlr_rag.specializing.asking import BARE, as_judged, make_queries
from mlr_rag.specializing.budget import Clock
from mlr_rag.specializing.material import Material, read_material
from mlr_rag.specializing.stages import Workspace
from mlr_rag.training.llm import LanguageModel

TOPICS = [f"{a}{b}{c}" for a, b, c in combinations("velo mora tan rik sul pod".split(), 3)] * 10
MATERIAL = read_material({f"d{n}": f"The {topic}{n} is a tool that dries wood." for n, topic in enumerate(TOPICS)})
CHINESE = [
    ["北京是中华人民共和国的首都，也是全国的政治和文化中心。", "水在一百度时沸腾，在零度时结冰。"][n % 2]
    + f"第{n}号文件说明了服务{n * 7}的使用方法，以及如何联系{n}号客服。"
    for n in range(80)
]


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Workspace]:
    place = Workspace(tmp_path)
    yield place
    place.close()


class Writer:
    """Writes a query of the passage's tool, and counts the prompts."""

    def __init__(self, seconds: float = 0.0, reply: str = "how to use {}") -> None:
        self.count, self._seconds, self._reply = 0, seconds, reply

    def __call__(self, prompt: str) -> str:
        self.count += 1
        time.sleep(self._seconds)
        tool = next(line for line in prompt.splitlines()[::-1] if line.startswith("The ")).split()[1]
        return self._reply.format(tool)


def asked(work: Workspace, clock: Clock, seconds: float) -> tuple[int, float, int]:
    """Prompts, seconds and queries of a model that takes its time."""
    writer, started = Writer(seconds), time.perf_counter()
    done = make_queries(MATERIAL, LanguageModel(writer, "slow", threads=1), work, clock, 0)
    return writer.count, time.perf_counter() - started, len(done.value.queries)


def test_replies_that_are_kept_do_not_make_a_model_look_fast(work: Workspace) -> None:
    first = asked(work, Clock(8), 0.024)  # a quarter is 2 seconds
    again = asked(work, Clock(8.1), 0.024)
    for count, seconds, _ in (first, again):
        assert 62 < count <= 2.1 / 0.024 + 8
        assert seconds < 4
    assert again[2] == first[0] + again[0], "the second has the queries of the first as well"


def test_a_fast_model_is_asked_for_three_queries_a_document(work: Workspace) -> None:
    assert asked(work, Clock(None), 0)[0] == 3 * len(TOPICS)


def test_queries_that_are_but_words_of_documents_are_made_for_a_teacher_alone(work: Workspace) -> None:
    commands = read_material(
        [" | ".join(f"{topic}{n}{letter} -x" for letter in "abcdefgh") for n, topic in enumerate(TOPICS)]
    )
    with pytest.raises(InvalidInputError, match="no query can be extracted"):
        make_queries(commands, None, work, Clock(None), 0)
    made = make_queries(commands, None, work, Clock(None), 0, taught=True)
    assert {query.kind for query in made.value.queries} <= set(BARE)
    judged, _, bare = as_judged(made.value)
    assert bare == judged.queries.keys()
    assert len(bare) > 40


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (CHINESE, r"of 80 documents.*spaces between words.*\(llm=\), or pass your own"),
        (
            [f"请在第{n}页重置密码。" for n in range(80)],
            "spaces between these.*queries of your own, or a language model",
        ),
    ],
)
def test_texts_without_spaces_need_a_language_model_or_queries_and_the_error_says_so(
    work: Workspace, texts: list[str], said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        make_queries(read_material(texts), None, work, Clock(None), 0)


def test_too_small_a_corpus_is_told_that_it_is_too_small(work: Workspace) -> None:
    small = Material(dict(list(MATERIAL.corpus.items())[:5]), dict(list(MATERIAL.parents.items())[:5]))
    with pytest.raises(InvalidInputError, match="Pass a larger corpus, a language model"):
        make_queries(small, None, work, Clock(None), 0)
    with pytest.raises(InvalidInputError, match=r"5 of 5 documents, asked before: 10.*Pass a larger corpus, or"):
        make_queries(small, LanguageModel(Writer(), "w"), work, Clock(None), 0)


@pytest.mark.parametrize("reply", ["will it rain in Oslo tomorrow", "which tool is it"])
def test_a_model_that_ignores_the_passages_is_an_error_before_much_is_asked(work: Workspace, reply: str) -> None:
    writer = Writer(reply=reply)
    with pytest.raises(LanguageModelError, match="of the first 50 replies"):
        make_queries(MATERIAL, LanguageModel(writer, "w"), work, Clock(None), 0)
    assert writer.count == 50
