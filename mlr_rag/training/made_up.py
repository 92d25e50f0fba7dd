"""A collection to try training on: what a company calls its services, and questions that use plain words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from mlr_rag.training.teachers.teacher import CallableTeacher

_NAMES = {
    "billing": "Falcon",
    "login": "Osprey",
    "search": "Heron",
    "email": "Kestrel",
    "chat": "Merlin",
    "backup": "Plover",
    "payroll": "Condor",
    "booking": "Puffin",
}
_TOPICS = {
    "How do I restart {}?": "{} is restarted by its drain script.",
    "Who is in charge of {}?": "The night shift looks after {}.",
    "Where are the logs of {}?": "{} writes what it does to the shared disk.",
    "Why is {} so slow?": "Look at the queue of {}: it may be full.",
}
_PLACES = list(product(_NAMES, _TOPICS))


def made_up(folder: str | Path = "made-up") -> tuple[Path, CallableTeacher]:
    """Write the collection, and give its folder and a teacher who knows it.

    It has 32 documents and as many queries, of which 8 are the test split: each service's name is in the training
    queries of other topics, so that what a model learns of it shows there. No model knows the names beforehand. The
    teacher gives one point for the right service and one for the right topic.
    """
    folder = Path(folder)
    about: dict[str, tuple[str, str]] = {}
    files = {"queries.jsonl": "", "corpus.jsonl": "", "qrels/train.tsv": "", "qrels/test.tsv": ""}
    for number, (name, question) in enumerate(_PLACES):
        query, document = question.format(name), _TOPICS[question].format(_NAMES[name])
        about |= {query: (name, question), document: (name, question)}
        files["queries.jsonl"] += json.dumps({"_id": f"q{number}", "text": query}) + "\n"
        files["corpus.jsonl"] += json.dumps({"_id": f"d{number}", "text": document}) + "\n"
        is_test = number % len(_TOPICS) == number // len(_TOPICS) % len(_TOPICS)
        files[f"qrels/{'test' if is_test else 'train'}.tsv"] += f"q{number}\td{number}\t1\n"
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_text(content, "utf-8")

    def score(pairs: Sequence[tuple[str, str]]) -> list[int]:
        return [sum(a == b for a, b in zip(about[query], about[text], strict=True)) for query, text in pairs]

    return folder, CallableTeacher(score, "made-up-1")
