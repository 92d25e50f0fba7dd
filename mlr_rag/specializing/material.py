"""What a model is specialized on: a corpus, and judged queries where there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlr_rag.specializing.corpora import read_corpus
from mlr_rag.specializing.judgments import in_corpus, read_judgments
from mlr_rag.training.cache import content_key


@dataclass(frozen=True)
class Judged:
    """Queries and their judgments.

    Attributes:
        queries: Query id → text.
        qrels: Query id → document id → grade; above 0 is relevant. The same queries.
    """

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]

    def relevant(self, query: str) -> list[str]:
        """The documents that are relevant to a query."""
        return [document for document, grade in self.qrels[query].items() if grade > 0]

    def only(self, ids: Iterable[str]) -> Judged:
        """These queries and their judgments, by id."""
        chosen = sorted(ids)
        return Judged({id: self.queries[id] for id in chosen}, {id: self.qrels[id] for id in chosen})


def documents_of(*parts: Judged) -> set[str]:
    """The ids that are judged in these, whatever the grade."""
    return {id for part in parts for grades in part.qrels.values() for id in grades}


@dataclass(frozen=True)
class Material:
    """A corpus and the judgments of it.

    Attributes:
        corpus: Document id → text, none of them blank.
        parents: Document id → what it is a passage of, a file or a row of one; itself where nothing is known.
        judged: The judgments by split: "train", "dev" and "test" as far as the user's own splits go; "all" where they
            are to be split; empty where there are none.
        notes: What was left out or changed: reason → how many.
    """

    corpus: dict[str, str]
    parents: dict[str, str]
    judged: dict[str, Judged] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Hex; equal where documents, parents and judgments are, in whatever order they came."""
        parts = [str(len(self.corpus))]
        for id in sorted(self.corpus):
            parts += (id, self.corpus[id], self.parents[id])
        for split, judged in sorted(self.judged.items()):
            parts += (split, str(len(judged.queries)))
            for query in sorted(judged.queries):
                grades = judged.qrels[query]
                parts += (query, judged.queries[query], str(len(grades)))
                for document in sorted(grades):
                    parts += (document, str(grades[document]))
        return content_key(*parts).hex()


def read_material(corpus: Any, queries: Any = None, qrels: Any = None, model: Any = None) -> Material:
    """Read a corpus and its judgments, in whatever form they come, and check that they belong together.

    What cannot be used is left out and counted in the notes. Queries that differ only in case, width or white space
    are one, with the judgments of both.

    Args:
        corpus: A folder or file, which is cut into passages, whose ids are within the folder, as "guide.md#0"; a BEIR
            folder or zip; a .jsonl file of `{"_id", "title", "text"}`, of which only the text is needed; a dict of id
            to text; any iterable of texts or Documents; or an open Retriever. Only the first is cut.
        queries: None for the judgments that a BEIR corpus has, or for none; "generate" for none; pairs of a query and
            the id or the text of its passage; a dict of id to text, with `qrels`; a BEIR folder or zip, whose train,
            dev and test are kept; or the path of a table (.tsv, .csv; with `query` in its first cell if it has a
            header) of query, id or text, and a grade if there are any; or of JSON lines, as of a click log:
            `{"query": "...", "clicked": an id, or a list}`, or "relevant" in its place, and a "grade", or "clicks",
            which count as 1 however many. In the place of an id may stand the path of a file that the corpus was read
            from, within its folder, from where we are or absolute: all of its passages are then judged so. A text that
            the corpus does not hold whole is unknown, as an id may be.
        qrels: Query id → document id → grade; above 0 is relevant.
        model: Whose tokenizer cuts files: a SentenceTransformer.

    Raises:
        InvalidInputError: fewer than 2 different documents; fewer relevant documents that the corpus has than it lacks;
            a form that is none of these. A broken line is named by its file and number.
        InvalidDocumentError: a text that could not be stored, or two under one id.
        MissingExtraError: a file needs a package that is not installed.
    """
    notes: Counter[str] = Counter()
    found = read_judgments(queries, qrels, corpus)  # the quick part first
    texts, parents, paths = read_corpus(corpus, model, notes)
    judged = {split: Judged(*judgments) for split, judgments in in_corpus(found, texts, paths, notes).items()}
    return Material(texts, parents, judged, {reason: count for reason, count in sorted(notes.items()) if count})
