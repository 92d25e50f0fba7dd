"""A specialization that takes seconds: a random model, short passages about pairs of things, and a teacher."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from unittest import mock

import transformers as hf

from mlr_rag.training.teachers.teacher import CallableTeacher
from tests import tiny

THINGS = "river stone bridge kitchen stove kettle capital water road file line page".split()
PAIRS = [f"{one} {other}" for one, other in combinations(THINGS, 2)]
CORPUS = {f"d{place}": f"the {pair} is old and it meets the {pair}" for place, pair in enumerate(PAIRS)}
ASKED = ("what is {}", "how to read the {}", "{} in paris")
QUERIES = {
    f"q{place}-{number}": asked.format(PAIRS[place])
    for place in range(len(PAIRS))
    for number, asked in enumerate(ASKED)
}
QRELS = {id: {f"d{id[1:].split('-')[0]}": 1} for id in QUERIES}
BATCH = 64  # pairs that the teacher is asked for at once: what a kill may lose


def build_model(folder: Path) -> Path:
    """A random BERT of 64 dimensions, as many as the query adapter's rank."""
    sizes = {**tiny._SIZES, "hidden_size": 64}
    with mock.patch.dict(tiny.CONFIGS, wide=lambda: hf.BertConfig(**sizes, **tiny._HEADS)):
        return tiny.build("wide", folder)


def build_probe(folder: Path) -> Path:
    """A BEIR folder of what the corpus is not about."""
    lines = [
        (number, f"{a} before {b}", f"{b} by {a}")
        for number, (a, b) in enumerate(combinations("aa bb cc dd ee ff".split(), 2))
    ]
    (folder / "qrels").mkdir(parents=True)
    for file, letter, column in (("queries", "q", 1), ("corpus", "d", 2)):
        texts = (json.dumps({"_id": f"{letter}{line[0]}", "text": line[column]}) for line in lines)
        (folder / f"{file}.jsonl").write_text("\n".join(texts))
    (folder / "qrels" / "test.tsv").write_text("".join(f"q{number}\td{number}\t1\n" for number, *_ in lines))
    return folder


def words_teacher(log: Path | None = None, name: str = "words") -> CallableTeacher:
    """Counts common words; notes the pairs that it is asked for."""

    def score(pairs: Sequence[tuple[str, str]]) -> list[int]:
        if log is not None:
            with log.open("a") as file:
                file.writelines(f"{query}\t{text}\n" for query, text in pairs)
        return [len(set(query.split()) & set(text.split())) for query, text in pairs]

    teacher = CallableTeacher(score, name)
    teacher.batch = BATCH  # type: ignore[attr-defined]
    return teacher
