"""Every form of queries and judgments, checked against the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

from mlr_rag.documents import beginning
from mlr_rag.errors import InvalidInputError
from mlr_rag.evaluation.collection import Collection
from mlr_rag.folders import resolved
from mlr_rag.reading.files import LINES, TABLES
from mlr_rag.specializing.corpora import is_collection
from mlr_rag.specializing.lines import broken, json_lines, rows
from mlr_rag.specializing.paths import Paths
from mlr_rag.training.cache import content_key
from mlr_rag.training.mining.building import normalized

Queries: TypeAlias = dict[str, str]
Qrels: TypeAlias = dict[str, dict[str, int]]
Found: TypeAlias = tuple[str, dict[str, int]]  # a query's text; document id, or text → grade

SPLITS = ("train", "dev", "test")

_FORMS = "pairs of a query and an id or text, a dict with qrels, a BEIR folder or zip, a file of pairs or clicks"
_LINE = '{"query": "...", "clicked" or "relevant": an id or text, or a list of them, "grade" or "clicks": 1}'
_ROW = "a query, an id or text, and the grade if there are any"


def read_judgments(queries: Any, qrels: Any, corpus: Any) -> dict[str, tuple[Queries, Qrels]]:
    """The queries and judgments of each split, as they are; "all" where there are no splits.

    Raises:
        InvalidInputError: see read_material.
    """
    if qrels is not None and not isinstance(queries, Mapping):
        raise InvalidInputError("qrels without queries by id", found=queries, expected="queries={id: text}")
    if queries is None:
        own = isinstance(corpus, (str, Path)) and is_collection(Path(corpus)) and Collection.splits(corpus)
        return _of_collection(Path(corpus)) if own else {}
    if isinstance(queries, (str, Path)):
        return {} if queries == "generate" else _of_path(Path(queries))
    if isinstance(queries, Mapping):
        return {"all": _of_mapping(queries, qrels)}
    if isinstance(queries, Iterable) and not isinstance(queries, bytes):
        return {"all": _joined(_of_pairs(queries))}
    raise InvalidInputError("no queries", found=type(queries).__name__, expected=_FORMS)


def in_corpus(
    found: dict[str, tuple[Queries, Qrels]], corpus: Mapping[str, str], paths: Paths, notes: Counter[str]
) -> dict[str, tuple[Queries, Qrels]]:
    """What the corpus has of the judgments; equal queries of a split are one, under the smallest of their ids.

    Texts in the place of ids are looked up, so that every document with that text is relevant, and so are paths. One
    that the corpus lacks is not added to it: the model would be measured on passages that nobody will index.

    Raises:
        InvalidInputError: the corpus has none of the relevant documents, or less than half of them.
    """
    said: dict[str, list[str]] = {}
    for id, text in corpus.items():
        said.setdefault(normalized(text), []).append(id)
    unknown: list[str] = []

    def known(judged: str) -> list[str]:
        if judged in corpus:
            return [judged]
        if ids := said.get(normalized(judged), []) or [name for name in paths.names(judged) if name in corpus][:1]:
            return ids
        ids = paths.passages(judged)
        notes["judgments of a file, taken for all of its passages"] += bool(ids)
        return ids

    kept = {split: _known(*judgments, known, unknown, notes) for split, judgments in found.items()}
    positives = sum(grade > 0 for _, qrels in kept.values() for grades in qrels.values() for grade in grades.values())
    if found and len(unknown) > positives:
        raise InvalidInputError(
            "the queries judge documents that are not in the corpus",
            found=f"{len(unknown):,} unknown, such as {beginning(min(unknown), 60)!r}, and {positives:,} known",
            expected=f"ids such as {min(corpus)!r}, the documents' whole texts, or the paths of files that were read",
            remedy="Pass the corpus that was judged.",
        )
    if found and not positives:
        raise InvalidInputError("no query has a relevant document", expected=_FORMS)
    notes["judgments of documents that are not in the corpus"] += len(unknown)
    return {split: _worth_asking(queries, qrels, notes) for split, (queries, qrels) in kept.items()}


def _known(
    queries: Queries,
    qrels: Qrels,
    known: Callable[[str], list[str]],
    unknown: list[str],
    notes: Counter[str],
) -> tuple[Queries, Qrels]:
    names: dict[str, str] = {}
    joined: Qrels = {}
    for id in sorted(qrels):
        if not queries[id].strip():
            notes["blank queries"] += 1
            continue
        if not (_is_storable(id) and _is_storable(queries[id])):
            notes["queries with half a character in them"] += 1
            continue
        name = names.setdefault(normalized(queries[id]), id)
        notes["queries that were joined with an equal one"] += name != id
        grades = joined.setdefault(name, {})
        for document, grade in sorted(qrels[id].items()):
            ids = known(document)
            if not ids and grade > 0:
                unknown.append(document)
            for one in ids:
                grades[one] = max(grade, grades.get(one, grade))
    return {name: queries[name] for name in joined}, joined


def _is_storable(text: str) -> bool:
    """Whether it holds no half of a character, as texts do that were cut in the midst of an emoji."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _worth_asking(queries: Queries, qrels: Qrels, notes: Counter[str]) -> tuple[Queries, Qrels]:
    kept = [id for id, grades in qrels.items() if any(grade > 0 for grade in grades.values())]
    notes["queries without a relevant document"] += len(qrels) - len(kept)
    return {id: queries[id] for id in kept}, {id: qrels[id] for id in kept}


def _of_collection(path: Path) -> dict[str, tuple[Queries, Qrels]]:
    found = [split for split in Collection.splits(path) if split in SPLITS]
    if not found:
        raise InvalidInputError(
            f"{path} has no judgments that can be used",
            found=", ".join(Collection.splits(path)) or "no qrels",
            expected="qrels/train.tsv, and dev.tsv and test.tsv if they are there",
        )
    loaded = (Collection.load(path, split) for split in found)
    return {collection.split: (collection.queries, collection.qrels) for collection in loaded}


def _of_mapping(queries: Mapping[Any, Any], qrels: Any) -> tuple[Queries, Qrels]:
    if not isinstance(qrels, Mapping):
        raise InvalidInputError(
            "queries without judgments", found=qrels, expected="qrels={query id: {document id: grade}}"
        )
    if missing := sorted(str(id) for id in qrels.keys() - queries.keys()):
        raise InvalidInputError(
            "judged queries have no text", found=f"{len(missing):,}, such as {missing[0]}", expected="none"
        )
    for id, text in queries.items():
        if not isinstance(id, str) or not isinstance(text, str):
            raise InvalidInputError(f"query {id!r:.60} is not a text", found=text, expected="str, under a str")
    for id, grades in qrels.items():
        if not isinstance(grades, Mapping) or not all(
            isinstance(document, str) and _is_grade(grade) for document, grade in grades.items()
        ):
            raise InvalidInputError(f"no judgments of query {id!r:.60}", found=grades, expected="{document id: grade}")
    return dict(queries), {
        id: {document: int(grade) for document, grade in qrels.get(id, {}).items()} for id in queries
    }


def _of_path(path: Path) -> dict[str, tuple[Queries, Qrels]]:
    if not resolved(path).exists():
        raise InvalidInputError(f"no queries at {path}", expected=_FORMS, remedy="Check the path.")
    if path.is_dir() or is_collection(path):
        return _of_collection(path)
    if path.suffix.lower() in LINES:
        return {"all": _joined(_of_lines(path))}
    if path.suffix.lower() in TABLES:
        return {"all": _joined(_of_rows(path))}
    raise InvalidInputError(f"{path} is no file of queries", found=path.suffix, expected=_FORMS)


def _of_pairs(pairs: Iterable[Any]) -> Iterator[Found]:
    for place, pair in enumerate(pairs):
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
            raise InvalidInputError(f"item {place:,} of the queries is no pair", found=pair, expected=_FORMS)
        yield pair[0], {pair[1]: 1}


def _of_lines(path: Path) -> Iterator[Found]:
    for place, value in json_lines(path, _LINE):
        query, documents = value.get("query"), value.get("clicked", value.get("relevant"))
        grade, clicks = value.get("grade"), value.get("clicks", 1)
        listed = documents if isinstance(documents, list) else [] if _unclicked(value) else [documents]
        if (
            not isinstance(query, str)
            or not all(isinstance(document, (str, int)) for document in listed)
            or not _is_grade(clicks if grade is None else grade)
        ):
            raise broken(place, value, _LINE)
        yield query, dict.fromkeys(map(str, listed), int(clicks > 0) if grade is None else grade)


def _unclicked(value: Mapping[str, Any]) -> bool:
    """Whether a search led to nothing."""
    return any(name in value and value[name] is None for name in ("clicked", "relevant"))


def _of_rows(path: Path) -> Iterator[Found]:
    clicks = False
    for number, (place, cells) in enumerate(rows(path)):
        names = [cell.strip().lower() for cell in cells]
        if number == 0 and names[0] == "query":
            clicks = names[2:] == ["clicks"]
            if not clicks and names[2:] not in ([], ["grade"]):
                raise broken(place, cells, f"{_ROW}; the third column's name may be grade or clicks")
            continue
        query, document, grade = [*cells, "1"][:3] if len(cells) in (2, 3) else ("", "", "")
        try:
            value = int(grade)
        except ValueError:
            raise broken(place, cells, _ROW) from None
        yield query, {document.strip(): int(value > 0) if clicks else value}


def _joined(found: Iterable[Found]) -> tuple[Queries, Qrels]:
    """Queries under ids that are made of their texts."""
    queries: Queries = {}
    qrels: Qrels = {}
    for query, judged in found:
        id = f"query-{content_key(normalized(query)).hex()[:16]}"
        queries[id] = min(query, queries.get(id, query))
        grades = qrels.setdefault(id, {})
        for document, grade in judged.items():
            grades[document] = max(grade, grades.get(document, grade))
    return queries, qrels


def _is_grade(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
