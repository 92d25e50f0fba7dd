from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlr_rag import Document, InvalidInputError, MLRModel, Retriever
from mlr_rag.errors import DuplicateIdError, InvalidDocumentError
from mlr_rag.evaluation.collection import Collection
from mlr_rag.specializing.material import Judged, Material, read_material
from mlr_rag.testing import HashEncoder

TEXTS = {"a": "the capital of France is Paris", "b": "water boils in the kettle", "c": "old roads meet at the river"}
QUERIES = {"1": "what is the capital", "2": "what boils", "3": "where do roads meet"}
QRELS = {"1": {"a": 2}, "2": {"b": 1}, "3": {"c": 1}}
JUDGED = {"all": Judged(QUERIES, QRELS)}


def lines(path: Path, values: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(value) for value in values) + "\n")
    return path


def beir(folder: Path, splits: dict[str, dict[str, dict[str, int]]]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    lines(folder / "corpus.jsonl", [{"_id": id, "text": text} for id, text in TEXTS.items()])
    lines(folder / "queries.jsonl", [{"_id": id, "text": text} for id, text in QUERIES.items()])
    for split, qrels in splits.items():
        rows = [
            f"{query}\t{document}\t{grade}" for query, grades in qrels.items() for document, grade in grades.items()
        ]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]))
    return folder


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder.parent))
    return folder.with_suffix(".zip")


@pytest.mark.parametrize("packed", [lambda folder: folder, zipped, str])
def test_a_beir_corpus_brings_its_own_splits(tmp_path: Path, packed: Callable[[Path], Any]) -> None:
    place = packed(beir(tmp_path / "coll", {"train": {"1": {"a": 2}, "2": {"b": 1}}, "test": {"3": {"c": 1}}}))
    material = read_material(place)
    assert material.corpus == TEXTS
    assert material.parents == {id: id for id in TEXTS}
    assert material.judged == {
        "test": Judged({"3": QUERIES["3"]}, {"3": {"c": 1}}),
        "train": Judged({"1": QUERIES["1"], "2": QUERIES["2"]}, {"1": {"a": 2}, "2": {"b": 1}}),
    }
    assert material.notes == {}


def test_splits_are_named_by_what_lies_in_qrels_beside_the_corpus(tmp_path: Path) -> None:
    folder = beir(tmp_path / "coll", {"train": QRELS, "dev": QRELS})
    assert Collection.splits(folder) == Collection.splits(zipped(folder)) == ["dev", "train"]
    (folder / "other" / "qrels").mkdir(parents=True)
    (folder / "other" / "qrels" / "test.tsv").touch()
    assert Collection.splits(folder) == Collection.splits(zipped(folder)) == ["dev", "train"]


def test_generate_ignores_the_judgments_that_there_are(tmp_path: Path) -> None:
    assert read_material(beir(tmp_path / "coll", {"train": QRELS}), "generate").judged == {}


def test_a_beir_corpus_without_judgments_is_a_corpus(tmp_path: Path) -> None:
    material = read_material(beir(tmp_path / "coll", {}))
    assert (material.corpus, material.judged) == (TEXTS, {})


def test_a_collection_without_a_split_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"found validation, expected qrels/train\.tsv"):
        read_material(beir(tmp_path / "coll", {"validation": QRELS}))


def test_files_are_cut_and_are_the_parents_of_their_passages(tmp_path: Path, tiny_model: MLRModel) -> None:
    (tmp_path / "long.md").write_text("\n\n".join(f"# Part {part}\n\n" + "the old river " * 30 for part in range(4)))
    (tmp_path / "short.txt").write_text("the kettle")
    (tmp_path / "rows.csv").write_text("name,value\none,two\nthree,part\n")
    (tmp_path / "image.png").touch()
    material = read_material(tmp_path, model=tiny_model)
    assert set(material.corpus) == set(material.parents)
    by_parent: dict[str, list[str]] = {}
    for id, parent in material.parents.items():
        by_parent.setdefault(parent, []).append(id)
    assert len(by_parent.pop("long.md")) >= 4
    assert len(by_parent.pop("short.txt")) == 1
    assert [len(ids) for ids in by_parent.values()] == [1, 1], "each row of a table is a parent"
    assert material.notes == {"files: unknown type .png": 1}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of texts, from the folder that it lies in: a long one, a short one, a table, and one within a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs" / "more").mkdir(parents=True)
    (tmp_path / "docs" / "guide.md").write_text("\n\n".join(f"# Part {n}\n\n" + "the river " * 40 for n in range(3)))
    (tmp_path / "docs" / "note.txt").write_text("the kettle")
    (tmp_path / "docs" / "more" / "note.txt").write_text("the old road")
    (tmp_path / "docs" / "rows.csv").write_text("name,value\none,two\nthree,part\n")
    return tmp_path / "docs"


@pytest.mark.parametrize("written", ["guide.md", "docs/guide.md", "./docs/../docs/guide.md", "{}/docs/guide.md"])
@pytest.mark.parametrize("corpus", ["docs", "./docs/", "docs/guide.md", "{}/docs"])
def test_a_judged_file_stands_for_its_passages(
    files: Path, tiny_model: MLRModel, tmp_path: Path, written: str, corpus: str
) -> None:
    log = lines(tmp_path / "clicks.jsonl", [{"query": "rivers", "clicked": written.format(tmp_path), "grade": 2}])
    material = read_material(corpus.format(tmp_path), log, model=tiny_model)
    grades = material.judged["all"].qrels.popitem()[1]
    assert set(grades) == {id for id in material.corpus if id.startswith("guide.md#")}
    assert len(grades) >= 3
    assert set(grades.values()) == {2}
    assert material.notes["judgments of a file, taken for all of its passages"] == 1


@pytest.mark.parametrize("written", ["guide.md#1", "docs/guide.md#1", "{}/docs/guide.md#1"])
def test_a_judged_passage_of_a_file_is_that_passage_alone(
    files: Path, tiny_model: MLRModel, tmp_path: Path, written: str
) -> None:
    material = read_material(files, [("rivers", written.format(tmp_path))], model=tiny_model)
    assert by_text(material) == {"rivers": {"guide.md#1": 1}}
    assert material.notes == {}


def test_a_file_and_one_of_its_passages_are_judged_by_the_higher_grade(files: Path, tiny_model: MLRModel) -> None:
    material = read_material(files, {"q": "rivers"}, {"q": {"guide.md": 1, "guide.md#1": 3}}, tiny_model)
    grades = material.judged["all"].qrels["q"]
    assert (grades["guide.md#0"], grades["guide.md#1"]) == (1, 3)


def test_a_path_within_the_corpus_goes_before_one_from_where_we_are(
    files: Path, tiny_model: MLRModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files / "more")
    material = read_material(files, [("what boils", "note.txt"), ("roads", "more/note.txt")], model=tiny_model)
    assert by_text(material) == {"what boils": {"note.txt#0": 1}, "roads": {"more/note.txt#0": 1}}


@pytest.mark.parametrize("judged", ["guide", "ide.md", "../guide.md", "rows.csv", "docs", "", "more", "a\0b"])
def test_what_is_no_file_of_the_corpus_is_unknown(files: Path, tiny_model: MLRModel, judged: str) -> None:
    with pytest.raises(InvalidInputError, match="not in the corpus"):
        read_material(files, [("rivers", judged)], model=tiny_model)


def test_files_of_documents_and_of_open_collections_are_known_by_their_path_in_one_root() -> None:
    documents = [
        Document(f"{root} {path} {chunk}", f"{root}/{path}#{chunk}", {"root": root, "path": path, "chunk": chunk})
        for root, path in (("/one", "a.md"), ("/one", "b.md"), ("/two", "b.md"))
        for chunk in range(2)
    ]
    pairs = [("first", "a.md"), ("second", "/two/b.md"), ("either", "b.md")]
    expected = {"first": {"/one/a.md#0": 1, "/one/a.md#1": 1}, "second": {"/two/b.md#0": 1, "/two/b.md#1": 1}}
    with Retriever.open("memory:", HashEncoder()) as kb:
        kb.add(documents)
        for corpus in (documents, kb):
            material = read_material(corpus, pairs)
            assert by_text(material) == expected
            assert material.notes["judgments of documents that are not in the corpus"] == 1


def test_a_folder_that_has_moved_is_the_same_material(files: Path, tiny_model: MLRModel, tmp_path: Path) -> None:
    (files / "rows.csv").unlink()  # the id of a row hashes where it lies
    before = read_material("docs", [("rivers", "docs/guide.md")], model=tiny_model)
    moved = files.rename(tmp_path / "elsewhere")
    after = read_material(moved, [("rivers", "guide.md")], model=tiny_model)
    assert after.fingerprint == before.fingerprint
    assert min(after.corpus) == "guide.md#0"


def test_a_corpus_of_one_file_is_its_passages_parent(files: Path, tiny_model: MLRModel) -> None:
    material = read_material(files / "guide.md", model=tiny_model)
    assert set(material.parents.values()) == {"guide.md"}
    assert min(material.corpus) == "guide.md#0"


def test_files_are_not_cut_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the kettle")
    with pytest.raises(InvalidInputError, match="no model"):
        read_material(tmp_path)


def test_json_lines_have_their_ids_or_ids_from_their_content(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "c.jsonl",
        [{"_id": 7, "text": "one"}, {"id": "x", "title": "A title", "text": "two"}, {"text": "three"}, {"text": " "}],
    )
    material = read_material(str(path))
    assert material.corpus == {"7": "one", "x": "A title two", Document("three").id: "three"}
    assert material.notes == {"blank documents": 1}


def test_texts_documents_and_open_collections_are_corpora() -> None:
    documents = [
        Document("one", "1", {"root": "/r", "path": "a.md", "chunk": 0}),
        Document("two", "2", {"root": "/r", "path": "a.md", "chunk": 1}),
        Document("three", "3"),
    ]
    parents = {"1": "/r/a.md", "2": "/r/a.md", "3": "3"}
    assert read_material(iter(documents)).parents == parents
    with Retriever.open("memory:", HashEncoder()) as kb:
        kb.add(documents)
        material = read_material(kb)
    assert (material.corpus, material.parents) == ({"1": "one", "2": "two", "3": "three"}, parents)
    texts = read_material(["one", "two", "", "one"])
    assert texts.corpus == {Document(text).id: text for text in ("one", "two")}
    assert texts.notes == {"blank documents": 1, "documents that came twice": 1}
    assert read_material(TEXTS).corpus == TEXTS


@pytest.mark.parametrize(
    ("corpus", "problem"),
    [
        ([], "the corpus is empty"),
        (["", " "], "the corpus is empty: found 2 blank documents"),
        (["one"], "the corpus is one document"),
        (["one", "one"], "the corpus is one document"),
        ({"a": "One", "b": "one "}, "all documents say the same: found 2 duplicates"),
        (["one", 2], "item 1 of the corpus is not a text"),
        ({"a": "one", "b": 2}, "the text of document 'b' is not a string"),
        (7, "no corpus: found int"),
        ("no/such/folder", "nothing to read at no/such/folder"),
        ("no/such.zip", "no collection at no/such.zip"),
    ],
)
def test_a_corpus_that_cannot_be_used_is_refused(corpus: Any, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_material(corpus)
    assert problem in str(caught.value)


def test_two_texts_under_one_id_are_refused() -> None:
    with pytest.raises(DuplicateIdError):
        read_material([Document("one", "a"), Document("two", "a")])


def test_queries_by_id_come_with_qrels() -> None:
    assert read_material(TEXTS, QUERIES, QRELS).judged == JUDGED
    for queries, qrels in ((QUERIES, None), (None, QRELS), ([("a", "b")], QRELS)):
        with pytest.raises(InvalidInputError, match="qrels"):
            read_material(TEXTS, queries, qrels)


def by_text(material: Material) -> dict[str, dict[str, int]]:
    judged = material.judged["all"]
    return {judged.queries[id]: grades for id, grades in judged.qrels.items()}


def test_pairs_name_a_passage_by_its_id_or_by_its_text() -> None:
    material = read_material(
        TEXTS, [("what boils", "b"), ("what boils", "OLD roads meet at the river"), ("where", "c")]
    )
    assert by_text(material) == {"what boils": {"b": 1, "c": 1}, "where": {"c": 1}}


def test_every_document_with_the_text_of_a_pair_is_relevant() -> None:
    material = read_material(TEXTS | {"d": TEXTS["b"]}, [("what boils", TEXTS["b"])])
    assert by_text(material) == {"what boils": {"b": 1, "d": 1}}


def test_a_click_log_is_joined_by_query(tmp_path: Path) -> None:
    log = [
        {"query": "what boils", "clicked": "b", "clicks": 9},
        {"query": "What  boils", "clicked": ["a", "b"]},
        {"query": "roads", "clicked": "a", "clicks": 0},
        {"query": "roads", "relevant": ["c"], "grade": 3},
        {"query": "nothing was clicked", "clicked": []},
        {"query": "nor here", "clicked": None},
    ]
    material = read_material(TEXTS, lines(tmp_path / "log.jsonl", log))
    assert by_text(material) == {"What  boils": {"a": 1, "b": 1}, "roads": {"a": 0, "c": 3}}
    assert material.notes == {"queries without a relevant document": 2}


def test_clicks_in_a_table_count_as_one_as_in_a_log(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("query,clicked,clicks\nwhat boils,b,57\nwhat boils,a,0\n")
    assert by_text(read_material(TEXTS, tmp_path / "log.csv")) == {"what boils": {"a": 0, "b": 1}}
    (tmp_path / "log.csv").write_text("query,clicked,rank\nwhat boils,b,57\n")
    with pytest.raises(InvalidInputError, match=r"line 1 is broken.*may be grade or clicks"):
        read_material(TEXTS, tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.tsv", 'query\tpassage\nwhat boils\tb\n\nsay "old"\tc\t2\n'),
        ("p.csv", 'what boils,b\n"say ""old""",c,2\n'),
    ],
)
def test_tables_of_pairs_may_have_a_header_and_grades(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert by_text(read_material(TEXTS, tmp_path / name)) == {"what boils": {"b": 1}, 'say "old"': {"c": 2}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.jsonl", '{"query": "what", "clicked": "b"}\n{"query": "what"}'),
        ("q.jsonl", '{"query": "what", "clicked": "b"}\nnot json'),
        ("q.jsonl", '{"query": "what", "clicked": "b"}\n["a"]'),
        ("q.jsonl", '{"query": "what", "clicked": "b"}\n{"query": "what", "clicked": "b", "grade": "high"}'),
        ("q.jsonl", b'{"query": "what", "clicked": "b"}\n\xff'),
        ("q.tsv", "what\tb\nwhat\n"),
        ("q.tsv", "what\tb\nwhat\tb\thigh\n"),
    ],
)
def test_a_broken_line_is_named_by_file_and_number(tmp_path: Path, name: str, content: str | bytes) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInputError, match=rf"{name} line 2 is broken"):
        read_material(TEXTS, tmp_path / name)


def test_a_broken_line_of_a_corpus_is_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "c.jsonl", [{"text": "one"}, {"body": "two"}])
    with pytest.raises(InvalidInputError, match=r"c\.jsonl line 2 is broken"):
        read_material(path)


def test_equal_queries_are_one_under_the_smallest_id() -> None:
    queries = QUERIES | {"0": "WHAT boils "}
    material = read_material(TEXTS, queries, QRELS | {"0": {"c": 1, "b": 2}})
    assert material.judged["all"].qrels == {"0": {"b": 2, "c": 1}, "1": {"a": 2}, "3": {"c": 1}}
    assert material.notes == {"queries that were joined with an equal one": 1}


def test_what_some_queries_judge_in_vain_is_left_out_and_counted() -> None:
    qrels = {"1": {"a": 2, "gone": 1}, "2": {"gone": 1}, "3": {"c": 1, "gone": 0}}
    material = read_material(TEXTS, QUERIES | {"4": " "}, qrels | {"4": {"a": 1}})
    assert material.judged["all"].qrels == {"1": {"a": 2}, "3": {"c": 1}}
    assert material.notes == {
        "blank queries": 1,
        "judgments of documents that are not in the corpus": 2,
        "queries without a relevant document": 1,
    }


@pytest.mark.parametrize("qrels", [{"1": {"x": 1}}, {"1": {"x": 1, "a": 1}, "2": {"y": 1}}, {"1": {"a": 0, "x": 1}}])
def test_judgments_of_mostly_unknown_documents_are_refused(qrels: dict[str, dict[str, int]]) -> None:
    with pytest.raises(InvalidInputError, match="documents that are not in the corpus"):
        read_material(TEXTS, QUERIES, qrels)


@pytest.mark.parametrize(
    ("queries", "qrels", "problem"),
    [
        (QUERIES, {"1": {"a": 1}, "9": {"a": 1}}, "judged queries have no text: found 1, such as 9"),
        (QUERIES, {"1": {"a": "yes"}}, "no judgments of query '1'"),
        (QUERIES, {"1": ["a"]}, "no judgments of query '1'"),
        ({"1": None}, {}, "query '1' is not a text"),
        ([("one", "a"), "two"], None, "item 1 of the queries is no pair"),
        (7, None, "no queries: found int"),
        ("no/such.jsonl", None, "no queries at no/such.jsonl"),
        ("what is one? " * 100, None, "not a path"),
        ({"1": "what"}, {"1": {}}, "no query has a relevant document"),
        ([], None, "no query has a relevant document"),
    ],
)
def test_queries_that_cannot_be_used_are_refused(queries: Any, qrels: Any, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_material(TEXTS, queries, qrels)
    assert problem in str(caught.value)


def test_what_no_encoding_can_write_is_refused() -> None:
    with pytest.raises(InvalidDocumentError, match="surrogate"):
        read_material({"a": "one", "b": "two \ud800"})


def test_queries_that_were_cut_within_a_character_are_left_out_and_counted() -> None:
    queries = {"1": "what is one", "2": "what is two \ud83d", "\ud83d": "what is three"}
    material = read_material(TEXTS, queries, {id: {"a": 1} for id in queries})
    assert set(material.judged["all"].queries) == {"1"}
    assert material.notes == {"queries with half a character in them": 2}


def test_the_fingerprint_tells_content_from_order() -> None:
    def backwards(mapping: dict[str, Any]) -> dict[str, Any]:
        return dict(reversed(mapping.items()))

    material = read_material(TEXTS, QUERIES, QRELS)
    assert read_material(backwards(TEXTS), backwards(QUERIES), backwards(QRELS)).fingerprint == material.fingerprint
    others = [
        read_material(TEXTS),
        read_material(TEXTS | {"d": "more"}, QUERIES, QRELS),
        read_material(TEXTS | {"c": "other roads"}, QUERIES, QRELS),
        read_material(TEXTS, QUERIES | {"1": "which capital"}, QRELS),
        read_material(TEXTS, QUERIES, QRELS | {"1": {"a": 1}}),
        Material(material.corpus, material.parents | {"a": "file"}, material.judged),
        Material(material.corpus, material.parents, {"train": material.judged["all"]}),
    ]
    assert len({material.fingerprint, *(other.fingerprint for other in others)}) == 8
