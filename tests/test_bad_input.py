"""Bad input at every public door: a typed error with the value and the remedy, and the store as before."""

from __future__ import annotations

import datetime
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlr_rag import (
    Document,
    InvalidInputError,
    MLRModel,
    MlrRagError,
    ModelError,
    Retriever,
    StoreError,
    StoreLockedError,
    errors,
)
from mlr_rag.errors import (
    InvalidDocumentError,
    InvalidFilterError,
    InvalidQueryError,
    MissingExtraError,
    ModelNotFoundError,
    StoreCorruptError,
    StoreFullError,
    StoreNotFoundError,
)
from mlr_rag.stores import open_store
from mlr_rag.testing import HashEncoder
from mlr_rag_edge import folder as edge_folder

URLS = ("memory", "edge")


@pytest.fixture(params=URLS)
def kb(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Retriever]:
    url = "memory:" if request.param == "memory" else str(tmp_path / "kb")
    with Retriever.open(url, HashEncoder()) as kb:
        kb.add([Document("kept", "kept", {"n": 1})])
        yield kb
        assert kb.count() == 1
        assert kb.get("kept") == [Document("kept", "kept", {"n": 1})]
        assert kb.search("kept")[0].document.id == "kept"


def _deep(levels: int, key: str = "a") -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {key: value}
    return value


SURROGATE = "half \ud83d a character"
BAD_TEXTS = {
    "empty": "", "blank": " \n\t", "surrogate": SURROGATE, "nul": "a\0b", "none": None, "number": 7, "bytes": b"text",
    "nan": float("nan"), "list": ["text"],
}  # fmt: skip
BAD_METADATA = {
    "nan": {"a": float("nan")}, "infinity": {"a": {"b": [float("-inf")]}}, "date": {"a": datetime.date(2020, 1, 1)},
    "tuple": {"a": (1, 2)}, "set": {"a": {1}}, "bytes": {"a": b"x"}, "numpy": {"a": np.float32(1)}, "big": {"a": 2**63},
    "key": {1: "a"}, "nested key": {"a": {None: 1}}, "surrogate": {"a": SURROGATE}, "nul": {"a\0": 1},
    "list": [("a", 1)],     "object": {"a": object()}, "string": "a=1", "none": None,
}  # fmt: skip
BAD_IDS = {"number": 7, "none": None, "long": "x" * 10**6, "surrogate": SURROGATE, "nul": "a\0b", "bytes": b"x"}

Call = Callable[[Retriever], Any]
TABLE: dict[str, tuple[type[MlrRagError], Call]] = {
    **{f"add text {k}": (InvalidDocumentError, lambda kb, v=v: kb.add(["fine", v])) for k, v in BAD_TEXTS.items()},
    **{f"sync text {k}": (InvalidDocumentError, lambda kb, v=v: kb.sync(["fine", v])) for k, v in BAD_TEXTS.items()},
    **{f"document text {k}": (InvalidDocumentError, lambda kb, v=v: Document(v)) for k, v in BAD_TEXTS.items()},
    **{f"query {k}": (InvalidQueryError, lambda kb, v=v: kb.search(v)) for k, v in BAD_TEXTS.items()},
    **{f"queries {k}": (InvalidQueryError, lambda kb, v=v: kb.search_many(["fine", v])) for k, v in BAD_TEXTS.items()},
    **{
        f"metadata {k}": (InvalidDocumentError, lambda kb, v=v: kb.add([Document("fine", metadata=v)]))
        for k, v in BAD_METADATA.items()
    },
    **{f"document id {k}": (InvalidDocumentError, lambda kb, v=v: Document("fine", v)) for k, v in BAD_IDS.items()},
    **{f"get id {k}": (InvalidDocumentError, lambda kb, v=v: kb.get(["fine", v])) for k, v in BAD_IDS.items()},
    **{f"delete id {k}": (InvalidDocumentError, lambda kb, v=v: kb.delete(["kept", v])) for k, v in BAD_IDS.items()},
    **{
        f"k {k!r}": (InvalidQueryError, lambda kb, k=k: kb.search("fine", k=k))
        for k in (0, -1, 1.5, "4", None, True, float("nan"))
    },
    **{
        f"min_score {s!r}": (InvalidQueryError, lambda kb, s=s: kb.search("fine", min_score=s))
        for s in (2, -1.5, "0.5", float("nan"), True)
    },
    **{
        f"filter {f!r}": (InvalidFilterError, lambda kb, f=f: kb.search("fine", filter=f))
        for f in ({"a": {"$regex": "x"}}, {"$where": "1"}, "a = 1", {"a": None}, ["a"], {"a": [1]})
    },
    **{
        f"delete by {f!r}": (InvalidInputError, lambda kb, f=f: kb.delete(filter=f))
        for f in ({"$or": [{}]}, {"$and": [{}, {}]}, {"x": {"$nin": []}}, {"$not": {"$or": []}})
    },
    **{f"get {v!r}": (InvalidDocumentError, lambda kb, v=v: kb.get(v)) for v in (None, 7, b"x", {"a": 1})},
    **{f"delete {v!r}": (InvalidDocumentError, lambda kb, v=v: kb.delete(v)) for v in (7, b"x", {"a": 1})},
    **{f"queries {v!r}": (InvalidQueryError, lambda kb, v=v: kb.search_many(v)) for v in (None, 7, b"x")},
    "deep metadata": (InvalidDocumentError, lambda kb: kb.add(Document("a", metadata=_deep(5000)))),
    "deep filter": (InvalidFilterError, lambda kb: kb.count(_deep(5000, "$not"))),
    "count filter": (InvalidFilterError, lambda kb: kb.count({"a": {"$like": "x"}})),
    "delete filter": (InvalidFilterError, lambda kb: kb.delete(filter={"a": {"$like": "x"}})),
    "delete everything": (InvalidInputError, lambda kb: kb.delete(filter={})),
    "delete nothing named": (InvalidInputError, lambda kb: kb.delete()),
    "sync within": (InvalidFilterError, lambda kb: kb.sync(["fine"], within={"a": {"$like": "x"}})),
    "sync nothing": (InvalidInputError, lambda kb: kb.sync([])),
    "duplicate ids": (InvalidDocumentError, lambda kb: kb.add([Document("a", "x"), Document("b", "x")])),
    "add none": (InvalidDocumentError, lambda kb: kb.add(None)),
    "add a number": (InvalidDocumentError, lambda kb: kb.add(7)),
    "add bytes": (InvalidDocumentError, lambda kb: kb.add(b"text")),
    "add a dict": (InvalidDocumentError, lambda kb: kb.add({"text": "a"})),
    "add dicts": (InvalidDocumentError, lambda kb: kb.add([{"text": "a"}])),
    "queries a string": (InvalidQueryError, lambda kb: kb.search_many("fine")),
}


@pytest.mark.parametrize("name", TABLE)
def test_bad_input(kb: Retriever, name: str) -> None:
    kind, call = TABLE[name]
    with pytest.raises(kind) as raised:
        call(kb)
    error = raised.value
    assert isinstance(error, ValueError)
    assert len(str(error)) < 700, "an error shows the value, not all of it"
    assert error.remedy or error.expected is not None, "it says what to do"


def test_a_megabyte_of_text(tmp_path: Path, tiny_model: Any) -> None:
    """It is stored whole and found by its beginning, and the cut is reported."""
    text = "paris is the capital of france " * 33_000
    with Retriever.open(tmp_path / "kb", tiny_model) as kb:
        assert kb.add([text, "water"]).cut == 1
        assert kb.search(text[:100_000], k=1)[0].document.text == text


def test_ids_of_any_length_that_is_allowed() -> None:
    assert Document("a", "x" * 4096).id == "x" * 4096
    with pytest.raises(InvalidDocumentError, match="4,097 characters"):
        Document("a", "x" * 4097)


# -- places ------------------------------------------------------------------------------------------------------


def _open(path: Any) -> Retriever:
    return Retriever.open(path, HashEncoder())


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="file"):
            _open(path)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(StoreCorruptError, match=r"not a collection.*thesis\.txt.*nothing here was touched"):
        _open(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(StoreError, match="cannot write to /proc"):
        _open("/proc/kb")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot write"):
        _open(tmp_path / "kb")
    tmp_path.chmod(0o700)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine would be killed by a full disk (it maps its files), so nothing is begun that might not fit."""
    with _open(tmp_path / "kb") as kb:
        kb.add("kept")
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(edge_folder.shutil, "disk_usage", lambda path: usage._replace(free=50 << 20))
        with pytest.raises(StoreFullError, match=r"found 50 MiB free, expected 64 MiB.*run the same command again"):
            kb.add("more")
        assert kb.count() == 1
    with pytest.raises(StoreFullError):
        _open(tmp_path / "kb")
    monkeypatch.undo()
    with _open(tmp_path / "kb") as kb:
        assert kb.add(["kept", "more"]).skipped == 1


def test_more_hits_than_can_be(kb: Retriever) -> None:
    assert len(kb.search("kept", k=2**70)) == 1


@pytest.mark.parametrize("url", [None, 7, "", "x" * 300, "a\0b", "\ud800"], ids=ascii)
def test_places_that_cannot_be(url: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MlrRagError):
        _open(url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tolerance", [2, -1.5, "abc", float("nan"), None, True])
def test_tolerances_that_are_no_cosine(tolerance: Any) -> None:
    with pytest.raises(InvalidInputError, match="not a cosine"):
        Retriever.open("memory:", HashEncoder(), tolerance=tolerance)


@pytest.mark.parametrize("url", ["ftp://somewhere", "memory:named", "edge:", "nothing:x"])
def test_urls_that_no_store_takes(url: str) -> None:
    with pytest.raises(InvalidInputError):
        _open(url)


def test_no_collection_there(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="no collection"):
        open_store(str(tmp_path / "kb"))
    assert not (tmp_path / "kb").exists(), "asking did not make it"


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garble(path: Path) -> None:
    path.write_bytes(b"garbage" * 100)


def _edit(kb: Path, **values: Any) -> None:
    path = kb / "collection.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


CORRUPTIONS: dict[str, Callable[[Path], Any]] = {
    "description gone": lambda kb: (kb / "collection.json").unlink(),
    "description cut": lambda kb: _truncate(kb / "collection.json"),
    "description empty": lambda kb: (kb / "collection.json").write_text(""),
    "description a list": lambda kb: (kb / "collection.json").write_text("[]"),
    "description of the future": lambda kb: (kb / "collection.json").write_text('{"format": 9, "dimension": 16}'),
    "shard gone": lambda kb: shutil.rmtree(kb / "shard"),
    "engine's config garbled": lambda kb: _garble(kb / "shard" / "edge_config.json"),
    "log garbled": lambda kb: [_garble(file) for file in (kb / "shard" / "wal").glob("open-*")],
    "segments gone": lambda kb: shutil.rmtree(kb / "shard" / "segments"),
    "description without a shape": lambda kb: (kb / "collection.json").write_text('{"format": 1, "dimension": 16}'),
    "passport gone": lambda kb: _edit(kb, info={}),
    "passport empty": lambda kb: _edit(kb, info={"passport": {}}),
    "info a list": lambda kb: _edit(kb, info=[]),
    "segment garbled": lambda kb: [_garble(file) for file in (kb / "shard" / "segments").glob("*/*.json")],
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupted_collection(tmp_path: Path, name: str) -> None:
    with _open(tmp_path / "kb") as kb:
        kb.add("kept")
    CORRUPTIONS[name](tmp_path / "kb")
    with pytest.raises(StoreCorruptError) as raised:
        _open(tmp_path / "kb")
    assert str(tmp_path / "kb") in str(raised.value)
    assert "Restore the folder" in raised.value.remedy
    with pytest.raises(StoreCorruptError):
        _open(tmp_path / "kb")  # the lock was released: the same clear error again


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told(tmp_path: Path) -> None:
    """The engine's threads do not live on in a child: using it there would hang."""
    script = f"""
import os, sys
from mlr_rag_edge import EdgeStore
store = EdgeStore({str(tmp_path / "kb")!r}, 8)
child = os.fork()
if child == 0:
    try:
        store.count()
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(store.count())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("StoreLockedError"), done.stderr
    assert "after the fork" in done.stdout
    assert done.stdout.endswith("0\n")


def test_damage_that_shows_later(tmp_path: Path) -> None:
    with _open(tmp_path / "kb") as kb:
        kb.add([f"text {i}" for i in range(500)])
    for file in (tmp_path / "kb" / "shard" / "segments").glob("*/payload_storage/page_0.dat"):
        file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(StoreCorruptError, match="engine"), _open(tmp_path / "kb") as kb:
        kb.search("text")


def test_another_process_is_told(tmp_path: Path) -> None:
    script = f"""
from mlr_rag.stores import open_store
try:
    open_store({str(tmp_path / "kb")!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    with _open(tmp_path / "kb") as kb:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout.startswith("StoreLockedError"), done.stderr
        assert str(tmp_path / "kb") in done.stdout
        assert "readers included" in done.stdout
        assert "Close it there first" in done.stdout
        kb.add("still works")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == ""


def test_models_that_are_not_there(tmp_path: Path) -> None:
    for name in ("nobody/nothing-at-all", str(tmp_path / "nowhere"), "./nowhere"):
        with pytest.raises(ModelNotFoundError) as raised:
            Retriever.open("memory:", name)
        assert raised.value.found
    with pytest.raises(InvalidInputError, match="not a model"):
        Retriever.open("memory:", 42)
    for name in (None, 42, ""):
        for make in (MLRModel.from_pretrained, MLRModel.load):
            with pytest.raises(InvalidInputError, match="not the name of a model"):
                make(name)  # type: ignore[operator]


@pytest.mark.parametrize(
    "damage", ["weights cut", "config garbled", "modules a dict", "unknown architecture", "tokenizer gone"]
)
def test_damaged_models(tiny_model_dir: Path, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    match damage:
        case "weights cut":
            _truncate(folder / "model.safetensors")
        case "config garbled":
            _garble(folder / "config.json")
        case "modules a dict":
            (folder / "modules.json").write_text('{"a": 1}')
        case "unknown architecture":
            (folder / "config.json").write_text('{"model_type": "no-such-thing"}')
        case "tokenizer gone":
            for file in folder.glob("tokenizer*"):
                file.unlink()
    with pytest.raises(ModelError) as raised:
        MLRModel.from_pretrained(folder)
    assert str(folder) in str(raised.value)
    assert raised.value.remedy


# -- the errors themselves ---------------------------------------------------------------------------------------


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, MlrRagError)]
    drawn = re.findall(r"(?:^|[├└]── )(\w+)", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn[1:]) == sorted(error.__name__ for error in classes)
    assert all(error.__doc__ for error in classes)


def test_errors_survive_pickling() -> None:
    error = StoreLockedError("locked", found="a", expected="b", remedy="Do c.")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.found, again.remedy) == (StoreLockedError, str(error), "a", "Do c.")


@pytest.mark.parametrize("step", ["made", "described", "dropped"])
def test_killed_while_it_was_made_or_dropped(tmp_path: Path, step: str) -> None:
    """Whatever moment a process is killed at, the folder can be opened again, and full ones lose nothing."""
    kb = tmp_path / "kb"
    with _open(kb) as open_kb:
        open_kb.add("kept")
    (kb / "shard").rename(kb / "shard.new")
    if step != "described":
        (kb / "collection.json").unlink()
    with _open(kb) as open_kb:
        assert open_kb.count() == (1 if step == "described" else 0)


def test_a_store_whose_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mlr_rag_qdrant")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'mlr-rag[qdrant]'")):
        open_store("qdrant+https://example.org/docs")


def test_an_unknown_scheme_does_not_repeat_the_password() -> None:
    with pytest.raises(InvalidInputError, match="no store for this URL") as error:
        open_store("qdrant+http://user:secret@example.org/docs")
    assert "secret" not in str(error.value)
