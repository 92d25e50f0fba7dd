"""What is Chroma's own: its addresses, credentials, folders, servers, and other people's collections."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import chromadb
import httpx
import pytest

from mlr_rag import Document, ModelMismatchError, Retriever
from mlr_rag.errors import (
    InvalidFilterError,
    InvalidInputError,
    StoreClosedError,
    StoreCorruptError,
    StoreDeniedError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreNotFoundError,
    StoreUnavailableError,
    UnsupportedModelError,
)
from mlr_rag.filters import parse
from mlr_rag.stores import Record, VectorStore, open_store
from mlr_rag.testing import HashEncoder, unit_rows
from mlr_rag_chroma import ChromaStore, clients, connection
from mlr_rag_chroma.rows import columns
from mlr_rag_chroma.settings import settings
from tests.chroma_server import ChromaServer

TOKEN = "a-secret-token"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChromaServer]:
    with ChromaServer(tmp_path_factory.mktemp("chroma")) as server:
        yield server


@pytest.fixture
def client() -> Any:
    """A user's client, over a store that all tests of this process share."""
    return clients.ephemeral()


@pytest.fixture
def name() -> str:
    return f"kb-{uuid.uuid4()}"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost server is not waited for."""
    monkeypatch.setattr(connection, "_PATIENCE", 0.2)


def records(n: int = 20, start: int = 0) -> list[Record]:
    rows = unit_rows(start + n)[start:]
    return [Record(Document(f"text {start + i}", str(start + i), {"n": start + i}), rows[i]) for i in range(n)]


# Addresses


@pytest.mark.parametrize(
    "location",
    [
        "", "name", "./folder/", "./folder/n!", "./folder/ab", "/", "//host:8000", "//host:8000/", "//host:x/name",
        "//host/a/name", "///name", "//host:8000/na--me", ":memory:name", ":memory:/", ":memory:/n",
        ":memory:/a/b", "//host:0/name",
    ],
)  # fmt: skip
def test_what_is_no_address(location: str) -> None:
    with pytest.raises(InvalidInputError, match="expected"):
        open_store(f"chroma:{location}", dimension=8)


@pytest.mark.parametrize("scheme", ["chroma", "chroma+https"])
@pytest.mark.parametrize("place", ["user:hunter2@host/name", "host/name?token=hunter2", "host:hunter2@x/name#hunter2"])
def test_credentials_in_a_url_are_refused_and_not_repeated(scheme: str, place: str) -> None:
    with pytest.raises(InvalidInputError, match="CHROMA_AUTH_TOKEN") as refused:
        open_store(f"{scheme}://{place}", dimension=8)
    assert "hunter2" not in f"{refused.value} {refused.value!r}"


def test_the_url_of_each_kind_opens_the_collection_again(tmp_path: Path, server: ChromaServer, name: str) -> None:
    folder = tmp_path / "a folder"
    for url in (f"chroma:{folder}/{name}", f"chroma:{server.location}/{name}", f"chroma::memory:/{name}"):
        with closing(open_store(url, dimension=8)) as store:
            assert store.url == url
            store.write_info({"made": "here"})
            with closing(open_store(store.url)) as again:
                assert again.info == {"made": "here"}


def test_nothing_is_made_where_nothing_is_asked_for(tmp_path: Path, server: ChromaServer, name: str) -> None:
    for location in (f"{tmp_path}/chroma/{name}", f"{server.location}/{name}", f":memory:/{name}", ":memory:"):
        with pytest.raises(StoreNotFoundError):
            open_store(f"chroma:{location}")
    assert list(tmp_path.iterdir()) == []


def test_memory_without_a_name_is_always_new() -> None:
    with closing(open_store("chroma::memory:", dimension=8)) as one:
        one.write_info({"n": 1})
        with closing(open_store("chroma::memory:", dimension=8)) as other:
            assert (other.url != one.url, other.info) == (True, None)
        with closing(open_store(one.url)) as again:
            assert again.info == {"n": 1}


# Clients


def test_a_client_of_ours_sends_no_telemetry_and_one_of_the_users_is_not_closed(client: Any, name: str) -> None:
    assert client.get_settings().anonymized_telemetry is False
    ChromaStore(client, name, 8).close()
    assert name in [collection.name for collection in client.list_collections()]


ELSEWHERE = """
import os, sys
from mlr_rag.stores import open_store
store = open_store(sys.argv[1], dimension=8)
print(store.url, sorted(os.listdir(sys.argv[2])))
store.close()
"""


@pytest.mark.parametrize("place", ["a file", "the environment"])
def test_the_environment_does_not_send_a_folder_elsewhere(tmp_path: Path, place: str, gate: str) -> None:
    port = gate.split(":")[2].split("/")[0]
    variables = {"CHROMA_API_IMPL": "chromadb.api.fastapi.FastAPI", "CHROMA_SERVER_HOST": "127.0.0.1"}
    variables |= {"CHROMA_SERVER_HTTP_PORT": port, "ANONYMIZED_TELEMETRY": "true"}
    if place == "a file":
        (tmp_path / ".env").write_text("".join(f"{key}={value}\n" for key, value in variables.items()))
        variables = {}
    folder = tmp_path / "chroma"
    words = [sys.executable, "-W", "ignore", "-c", ELSEWHERE, f"chroma:{folder}/kb1", str(folder)]
    environment = {**os.environ, **variables}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert "chroma.sqlite3" in done.stdout, done.stderr
    assert Gatekeeper.told == ()


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("CHROMA_API_IMPL", "CHROMA_SERVER_HOST", "PERSIST_DIRECTORY", "CHROMA_CLIENT_AUTH_CREDENTIALS"):
        monkeypatch.setenv(key, "theirs")
    monkeypatch.setenv("ANONYMIZED_TELEMETRY", "true")
    ours = settings(persist_directory="ours", chroma_server_host="ours", chroma_client_auth_credentials=None)
    assert (ours.persist_directory, ours.chroma_server_host, ours.anonymized_telemetry) == ("ours", "ours", False)
    assert "rust" in ours.chroma_api_impl
    assert ours.chroma_client_auth_credentials is None


@pytest.mark.parametrize("key", ["CHROMA_SERVER_GRPC_PORT", "CHROMA_SERVER_HEADERS"])
def test_settings_that_chromadb_cannot_use_are_named_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    script = "from mlr_rag.stores import open_store; open_store('chroma::memory:', dimension=8)"
    environment = {**os.environ, key: TOKEN}
    words = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert f"InvalidInputError: the environment has settings that chromadb cannot use: found {key.lower()}" in (
        done.stderr
    )
    assert TOKEN not in done.stderr
    monkeypatch.setenv(key, TOKEN)
    with pytest.raises(InvalidInputError, match=key.lower()) as refused:
        open_store("chroma::memory:", dimension=8)
    assert TOKEN not in f"{refused.value} {refused.value!r}"


def test_what_is_no_client() -> None:
    with pytest.raises(InvalidInputError, match="PersistentClient"):
        ChromaStore("./folder", "name", 8)


def test_a_client_of_the_users_and_a_url_share_a_folder(tmp_path: Path) -> None:
    with chromadb.PersistentClient(tmp_path) as client:
        mine = ChromaStore(client, "kb1", 8)
        mine.upsert(records())
        with closing(open_store(mine.url)) as other:
            assert other.count() == 20
            other.delete(ids=["0"])
        assert mine.count() == 19
        mine.close()
    with closing(open_store(f"chroma:{tmp_path}/kb1")) as again:
        assert again.count() == 19


def test_two_engines_over_one_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    url = f"chroma:{tmp_path}/kb1"
    store = open_store(url, dimension=8)
    with chromadb.PersistentClient(f"{tmp_path}/x/..") as client, pytest.raises(StoreLockedError, match="one client"):
        ChromaStore(client, "kb1", 8)
    store.close()
    with chromadb.PersistentClient(tmp_path), pytest.raises(StoreLockedError, match="other settings"):
        open_store(url)


def test_several_vectors_a_document_are_refused(client: Any, name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="pooling that gives one"):
        ChromaStore(client, name, 8, 3)
    assert name not in [collection.name for collection in client.list_collections()]


# Other people's collections


def test_a_foreign_collection_is_refused_untouched(client: Any, name: str) -> None:
    theirs = client.create_collection(name, metadata={"owner": "them"}, embedding_function=None)
    theirs.add(ids=["1"], embeddings=[[1.0, 0.0]])
    for dimension in (None, 2, 8):
        with pytest.raises(StoreCorruptError, match="not a collection of mlr_rag"):
            ChromaStore(client, name, dimension)
    assert (client.get_collection(name).metadata, theirs.count()) == ({"owner": "them"}, 1)


def test_a_foreign_collection_of_a_generations_name(client: Any, name: str) -> None:
    store = ChromaStore(client, name, 8)
    for suffix in ("2", "current"):
        client.create_collection(f"{name}--{suffix}", embedding_function=None)
    with pytest.raises(StoreCorruptError, match="--2 is not"):
        store.beside(2, 8)
    for call in (store.current, lambda: store.switch(1), store.drop):
        with pytest.raises(StoreCorruptError, match="--current is not"):
            call()
    assert store.generations() == [1]


def test_another_space_is_refused(client: Any, name: str) -> None:
    ours = {"mlr_rag": 1, "dimension": 8, "vectors_per_document": 1}
    client.create_collection(name, metadata=ours, embedding_function=None)
    with pytest.raises(StoreCorruptError, match="found l2, expected cosine"):
        ChromaStore(client, name, 8)


def test_another_format_is_refused(client: Any, name: str) -> None:
    client.create_collection(name, metadata={"mlr_rag": 2}, embedding_function=None)
    with pytest.raises(StoreCorruptError, match="found 2, expected format 1"):
        ChromaStore(client, name, 8)


def test_a_damaged_description_is_refused(client: Any, name: str) -> None:
    cosine: Any = {"hnsw": {"space": "cosine"}}
    client.create_collection(name, metadata={"mlr_rag": 1}, configuration=cosine, embedding_function=None)
    with pytest.raises(StoreCorruptError, match="found dimension None"):
        ChromaStore(client, name, 8)
    store = ChromaStore(client, f"{name}-2", 8)
    damaged = {"mlr_rag": 1, "dimension": 8, "vectors_per_document": 1, "info": "{"}
    client.get_collection(f"{name}-2", embedding_function=None).modify(metadata=damaged)
    with pytest.raises(StoreCorruptError, match="expected JSON"):
        _ = store.info


# Records


def test_what_vanished_from_a_record_is_gone(client: Any, name: str) -> None:
    store, row = ChromaStore(client, name, 8), unit_rows(1)[0]
    store.upsert([Record(Document("text", "x", {"year": 1999, "tags": ["a"], "flag": True}), row)])
    store.upsert([Record(Document("text", "x", {"year": "unknown"}), row)])
    for gone in ({"year": {"$gt": 0}}, {"year": 1999}, {"tags": {"$contains": "a"}}, {"flag": {"$exists": True}}):
        assert store.count(parse(gone)) == 0, gone
    assert store.count(parse({"year": "unknown", "$not": {"year": {"$lt": 0}}})) == 1
    store.upsert([Record(Document("text", "x"), row)])
    assert store.count(parse({"year": {"$exists": True}})) == 0
    (left,) = client.get_collection(name).get()["metadatas"]
    assert set(left) == {"record"}


def test_numbers_are_compared_to_the_last_bit(server: ChromaServer, name: str) -> None:
    """A server's JSON is not that exact: compared as floats some of these would not equal themselves."""
    chance, row = random.Random(0), unit_rows(1)[0]
    numbers = [chance.uniform(-1, 1) * 10.0 ** chance.randint(-300, 300) for _ in range(100)]
    with closing(open_store(f"chroma:{server.location}/{name}", dimension=8)) as store:
        store.upsert([Record(Document("text", str(i), {"x": x}), row) for i, x in enumerate(numbers)])
        for x in numbers:
            assert store.count(parse({"x": x})) == 1
            assert store.count(parse({"x": {"$gte": x}})) == sum(other >= x for other in numbers)
            assert store.count(parse({"x": {"$lt": x}})) == sum(other < x for other in numbers)


def test_two_connections_write_one_id(server: ChromaServer, name: str) -> None:
    """Neither knows of the other's fields, which Chroma keeps: filters must see those of the last record only."""
    url, rows, barrier = f"chroma:{server.location}/{name}", unit_rows(2), threading.Barrier(2, timeout=60)
    with closing(open_store(url, dimension=8)) as one, closing(open_store(url)) as other:

        def write(store: VectorStore, key: str) -> None:
            for i in range(60):
                barrier.wait()
                store.upsert([Record(Document(f"text {key}", str(i), {key: 1}), rows["ab".index(key)])])

        threads = [threading.Thread(target=write, args=pair) for pair in ((one, "a"), (other, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = {record.document.id: set(record.document.metadata) for batch in one.scan() for record in batch}
        assert len(left) == 60
        for key in "ab":
            have = {id for id, keys in left.items() if keys == {key}}
            for condition in (1, {"$gte": 0}, {"$in": [1, 2]}):
                assert {r.document.id for b in one.scan(parse({key: condition})) for r in b} == have
            for condition in ({"$ne": 1}, {"$nin": [1, 2]}):
                assert {r.document.id for b in one.scan(parse({key: condition})) for r in b} == set(left) - have
            assert {r.document.id for b in one.scan(parse({"$not": {key: {"$gte": 0}}})) for r in b} == set(left) - have


def test_a_field_that_a_lost_race_left_is_not_seen(client: Any, name: str) -> None:
    """What the race leaves, every time: a row with the number field of another writer's."""
    store, row = ChromaStore(client, name, 8), unit_rows(1)[0]
    store.upsert([Record(Document("text", "x", {"a": 1}), row)])
    batch = [Record(Document("text", "x", {"b": 2}), row)]
    client.get_collection(name, embedding_function=None).upsert(**columns(batch, {}))
    for gone in ({"a": 1}, {"a": {"$in": [1, 2]}}, {"a": {"$gt": 0}}, {"a": {"$exists": True}}):
        assert (store.count(parse(gone)), store.count(parse({"$not": gone}))) == (0, 1), gone


@pytest.mark.parametrize("place", ["memory", "server"])
def test_large_filters(server: ChromaServer, name: str, place: str) -> None:
    url = f"chroma:{server.location}/{name}" if place == "server" else f"chroma::memory:/{name}"
    with closing(open_store(url, dimension=8)) as store:
        rows = unit_rows(20)
        store.upsert([Record(Document("t", str(i), {"n": i, "s": str(i)}), rows[i]) for i in range(20)])
        many = list(range(10, 3010))
        mixed = [*many, *map(str, many)]
        for key in "ns":
            assert store.count(parse({key: {"$in": mixed}})) == 10
            assert store.count(parse({key: {"$nin": mixed}})) == 10
        assert len(store.query(rows[0], 15, parse({"n": {"$in": many}}))) == 10
        assert store.count(parse({"$or": [{"n": i} for i in many]})) == 10
        deep: dict[str, Any] = {"n": {"$gte": 0}}
        for i in range(50):
            deep = {"$and": [deep, {"s": {"$ne": "z"}}]} if i % 2 else {"$or": [deep, {"s": "z"}]}
        assert store.count(parse(deep)) == 20
        for _ in range(70):
            deep = {"$or": [{"s": "z"}, {"$and": [deep, {"s": {"$ne": "z"}}]}]}
        with pytest.raises(InvalidFilterError, match="too large"):
            store.count(parse(deep))
        with pytest.raises(InvalidInputError):
            store.query(rows[0], 2**70)
        with pytest.raises(InvalidInputError):
            store.query(rows[0], 2**33)


@pytest.mark.parametrize(("dimension", "vectors"), [(0, 1), (-3, 1), (8, 0)])
def test_what_is_no_shape(tmp_path: Path, client: Any, name: str, dimension: int, vectors: int) -> None:
    with pytest.raises(InvalidInputError, match="shape"):
        open_store(f"chroma:{tmp_path}/chroma/{name}", dimension=dimension, vectors_per_document=vectors)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidInputError, match="shape"):
        ChromaStore(client, name, dimension, vectors)
    with pytest.raises(InvalidInputError, match="shape"):
        ChromaStore(client, name, 8).beside(2, dimension, vectors)


def test_a_scan_misses_nothing_while_others_delete(client: Any, name: str) -> None:
    store = ChromaStore(client, name, 8)
    store.upsert(records(30))
    scan = store.scan(batch=10)
    seen = {record.document.id for record in next(scan)}
    store.delete(ids=sorted(seen))
    assert {record.document.id for batch in scan for record in batch} == {str(i) for i in range(30)} - seen


# Generations


def test_a_drop_that_was_killed_is_a_drop(client: Any, name: str) -> None:
    """Of a collection whose second generation is current the last thing to go is what says so."""
    store = ChromaStore(client, name, 8)
    side = store.beside(2, 16)
    store.switch(2)
    store.drop()
    client.delete_collection(f"{name}--2")
    with pytest.raises(StoreNotFoundError):
        ChromaStore(client, name)
    with pytest.raises(StoreClosedError):
        side.count()
    fresh = ChromaStore(client, name, 8)
    assert (fresh.generation, fresh.current(), fresh.generations()) == (1, 1, [1])


def test_a_lost_generation_is_named(client: Any, name: str) -> None:
    store = ChromaStore(client, name, 8)
    store.beside(2, 16)
    store.switch(2)
    client.delete_collection(f"{name}--2")
    with pytest.raises(StoreCorruptError, match="lacks its current generation"):
        ChromaStore(client, name, 8)


def test_a_dropped_collection_is_not_the_one_made_after_it(client: Any, name: str) -> None:
    old, dropped = ChromaStore(client, name, 8), ChromaStore(client, name, 8)
    dropped.drop()
    fresh = ChromaStore(client, name, 8)
    row = unit_rows(1)[0]
    calls: list[Callable[[], Any]] = [
        old.count, lambda: old.info, lambda: old.write_info({}), lambda: old.upsert(records()), old.drop,
        lambda: old.query(row, 1), lambda: old.get(["1"]), lambda: old.delete(ids=["1"]), lambda: list(old.scan()),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreClosedError):
            call()
    assert (fresh.count(), fresh.info) == (0, None)


def test_a_switch_is_seen_through_another_connection(server: ChromaServer, name: str) -> None:
    url = f"chroma:{server.location}/{name}"
    with closing(open_store(url, dimension=8)) as one, closing(open_store(url)) as other:
        one.upsert(records())
        one.beside(2, 16).close()
        one.switch(2)
        assert (other.current(), other.generation, other.count()) == (2, 1, 20)
        with closing(open_store(url)) as opened:
            assert (opened.generation, opened.dimension) == (2, 16)
            other.drop()
            assert opened.generations() == [2]
        with pytest.raises(ModelMismatchError, match="16 dimensions"):
            open_store(url, dimension=8)


# Folders


HOLD = """
import sys
from mlr_rag.stores import open_store
store = open_store(sys.argv[1], dimension=8)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    url = f"chroma:{tmp_path}/kb1"
    words = [sys.executable, "-W", "ignore", "-c", HOLD, url]
    holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for dimension in (None, 8):
            with pytest.raises(StoreLockedError, match="chroma run --path"):
                open_store(url, dimension=dimension)
        with chromadb.PersistentClient(tmp_path) as client, pytest.raises(StoreLockedError):
            ChromaStore(client, "kb1")
    finally:
        holder.kill()
        holder.communicate()
    with closing(open_store(url)) as store:
        assert store.count() == 0


def test_a_folder_deleted_and_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "chroma"
    for version in range(2):
        with closing(open_store(f"chroma:{folder}/kb1", dimension=8)) as store:
            assert store.count() == 0
            store.upsert(records())
            assert len(store.query(unit_rows(1)[0], 5)) == 5, version
        shutil.rmtree(folder)


def test_a_folder_deleted_under_an_open_store(tmp_path: Path) -> None:
    with closing(open_store(f"chroma:{tmp_path}/chroma/kb1", dimension=8)) as store:
        shutil.rmtree(tmp_path / "chroma")
        with pytest.raises(StoreError, match="moved or deleted while it was open") as gone:
            store.upsert(records())
        assert "Restore" not in str(gone.value)


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write"):
        open_store(f"chroma:{tmp_path}/file/kb1", dimension=8)
    (tmp_path / "chroma.sqlite3").write_text("not a database, though it has the name of one" * 100)
    with pytest.raises(StoreCorruptError):
        open_store(f"chroma:{tmp_path}/kb1", dimension=8)
    assert (tmp_path / "chroma.sqlite3").read_text().startswith("not a database")


def test_a_document_that_is_deleted_while_it_is_found_is_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    vector = unit_rows(1, 8)[0]
    store = ChromaStore(clients.ephemeral(), f"kb{uuid.uuid4().hex}", 8)
    store.upsert([Record(Document(id, id), vector) for id in ("here", "gone")])
    call = store._call

    def meanwhile(name: str, **options: Any) -> Any:
        found = call(name, **options)
        gone = found["ids"][0].index("gone")
        for column in ("documents", "metadatas"):  # as a server answers that looks up what it found
            found[column][0][gone] = None
        return found

    monkeypatch.setattr(store, "_call", meanwhile)
    for with_vectors in (False, True):
        matches = store.query(vector, 2, with_vectors=with_vectors)
        assert [match.record.document.id for match in matches] == ["here"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_store(f"chroma:{tmp_path}/kb1", dimension=8)) as store:
        store.upsert(records())
        monkeypatch.setattr("mlr_rag.folders.SPARE_BYTES", 1 << 60)
        with pytest.raises(StoreFullError, match="MiB free"):
            store.upsert(records(start=20))
        assert store.count() == 20


def test_a_client_that_its_user_closes(tmp_path: Path) -> None:
    client = chromadb.PersistentClient(tmp_path)
    store = ChromaStore(client, "kb1", 8)
    client.close()
    with pytest.raises(StoreClosedError):
        store.count()
    store.close()
    open_store(store.url).close()


FORK = """
import os, sys
from mlr_rag.errors import StoreLockedError
from mlr_rag.stores import open_store
store = open_store(sys.argv[1], dimension=8)
child = os.fork()
if child == 0:
    try:
        store.count()
    except StoreLockedError as refused:
        print(refused, flush=True)
    store.close()
    try:
        open_store(sys.argv[1])
    except StoreLockedError as refused:
        print(refused, flush=True)
    os._exit(0)
os.waitpid(child, 0)
store.write_info({"alive": True})
try:
    sys.exit(0 if store.info else 1)
finally:
    store.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told(tmp_path: Path) -> None:
    words = [sys.executable, "-W", "ignore", "-c", FORK, f"chroma:{tmp_path}/kb1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "after the fork" in done.stdout
    assert "forked from has" in done.stdout


# Servers


def test_a_killed_server_and_one_started_again(tmp_path: Path, impatient: None) -> None:
    with ChromaServer(tmp_path) as server:
        store = open_store(f"chroma:{server.location}/kb1", dimension=8)
        store.write_info({"passport": "p"})
        acknowledged = 0

        def write_on() -> None:
            nonlocal acknowledged
            while True:
                store.upsert(records(50, start=acknowledged))
                acknowledged += 50

        threading.Timer(0.5, server.kill).start()
        with pytest.raises(StoreUnavailableError, match="stopped answering") as lost:
            write_on()
        assert "same call again" in lost.value.remedy
        assert lost.value.__cause__ is None
        with pytest.raises(StoreUnavailableError):
            open_store(store.url)
        server.start()
        assert store.info == {"passport": "p"}
        written = records(acknowledged)
        assert store.get([record.document.id for record in written]) == [Record(each.document) for each in written]
        store.upsert(records(50, start=acknowledged))
        assert store.count() == acknowledged + 50
        store.close()


def test_a_short_absence_of_the_server_is_not_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PATIENCE", 60)  # on a machine that is busy a start takes long
    with ChromaServer(tmp_path) as server:
        store = open_store(f"chroma:{server.location}/kb1", dimension=8)
        server.kill()
        starting = threading.Thread(target=server.start)
        starting.start()
        store.upsert(records())
        assert store.count() == 20
        starting.join()
        store.close()


def test_an_ingest_into_a_server_that_dies_is_finished_by_another(tmp_path: Path, impatient: None) -> None:
    texts = [f"text {i}" for i in range(2000)]
    with ChromaServer(tmp_path) as server:
        url = f"chroma:{server.location}/kb1"
        with Retriever.open(url, HashEncoder(8)) as kb:
            kb.add(texts[:100])
            threading.Timer(0.3, server.kill).start()
            with pytest.raises(StoreUnavailableError):
                kb.add(texts)
        server.start()
        with Retriever.open(url, HashEncoder(8)) as kb:
            report = kb.add(texts)
            assert report.skipped >= 100
            assert (report.added + report.skipped, kb.count()) == (2000, 2000)


def test_a_document_that_is_too_large_for_the_server(server: ChromaServer, name: str) -> None:
    with closing(open_store(f"chroma:{server.location}/{name}", dimension=8)) as store:
        with pytest.raises(InvalidInputError, match="as large as"):
            store.upsert([Record(Document("x" * (41 << 20), "x"), unit_rows(1)[0])])
        large = [Record(Document("x" * (9 << 20), str(i)), row) for i, row in enumerate(unit_rows(6))]
        store.upsert(large)
        assert store.count() == 6


def test_a_server_that_is_not_there(impatient: None) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"chroma://127.0.0.1:{unused.getsockname()[1]}/kb1"
        with pytest.raises(StoreUnavailableError, match="chroma run"):
            open_store(url, dimension=8)


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_TIMEOUT", httpx.Timeout(0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"chroma://127.0.0.1:{silent.getsockname()[1]}/kb1"
        with pytest.raises(StoreUnavailableError, match="stopped answering"):
            open_store(url, dimension=8)


def test_no_such_tenant(server: ChromaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMA_TENANT", "nobody")
    with pytest.raises(StoreNotFoundError, match="CHROMA_TENANT"):
        open_store(f"chroma:{server.location}/kb1", dimension=8)


class Gatekeeper(BaseHTTPRequestHandler):
    """A server that answers everything in one way, and remembers what it was told."""

    status, body = 401, b""
    told: tuple[str | None, ...] = ()

    def do_GET(self) -> None:
        type(self).told += (self.headers["Authorization"],)
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Gatekeeper, "told", ())
    with HTTPServer(("127.0.0.1", 0), Gatekeeper) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"chroma://127.0.0.1:{server.server_port}/kb1"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b"who is there"),
        (403, b""),
        (403, b'{"error": "AuthError", "message": "a-secret-token is not known"}'),
        (401, b'{"error": "AuthorizationError", "message": "a-secret-token is not known"}'),
    ],
)
def test_credentials_come_from_the_environment_and_are_not_shown(
    gate: str, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes
) -> None:
    monkeypatch.setenv("CHROMA_AUTH_TOKEN", TOKEN)
    monkeypatch.setattr(Gatekeeper, "status", status)
    monkeypatch.setattr(Gatekeeper, "body", body)
    with pytest.raises(StoreDeniedError, match="CHROMA_AUTH_TOKEN") as denied:
        open_store(gate, dimension=8)
    assert f"Bearer {TOKEN}" in Gatekeeper.told
    assert TOKEN not in f"{denied.value} {denied.value!r} {denied.value.__cause__}"
    assert denied.value.__suppress_context__


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_too_busy(gate: str, monkeypatch: pytest.MonkeyPatch, impatient: None, status: int) -> None:
    monkeypatch.setattr(Gatekeeper, "status", status)
    with pytest.raises(StoreUnavailableError, match=str(status)):
        open_store(gate, dimension=8)


def test_what_is_no_server_of_chromas(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gatekeeper, "status", 200)
    monkeypatch.setattr(Gatekeeper, "body", b"<html>welcome</html>")
    with pytest.raises(StoreError, match="expected a Chroma server"):
        open_store(gate, dimension=8)


# Chroma Cloud


def test_a_client_of_the_cloud_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a client in memory in the place of the cloud's, which asks the cloud who it is when it is made."""
    theirs = settings(chroma_api_impl="chromadb.api.fastapi.FastAPI", chroma_server_host="api.trychroma.com")
    monkeypatch.setattr(client, "get_settings", lambda: theirs)
    with pytest.raises(InvalidInputError, match="kept in Chroma Cloud"):
        ChromaStore(client, "kb1", 8)
