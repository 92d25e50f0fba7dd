"""What is Qdrant's own: addresses, credentials, other people's collections, servers that fail, tenants, local mode."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from mlr_rag import Document
from mlr_rag.errors import (
    InvalidInputError,
    MlrRagError,
    ModelMismatchError,
    StoreClosedError,
    StoreCorruptError,
    StoreDeniedError,
    StoreError,
    StoreNotFoundError,
    StoreUnavailableError,
)
from mlr_rag.filters import parse
from mlr_rag.stores import Record, VectorStore, open_store
from mlr_rag.testing.vectors import records, unit_rows
from mlr_rag_qdrant import QdrantStore
from mlr_rag_qdrant.failures import of_server, transient
from mlr_rag_qdrant.locations import Folder, Memory, Server
from mlr_rag_qdrant.locations import parse as parse_location
from mlr_rag_qdrant.points import batches
from tests.fake_qdrant import FakeQdrant

SECRET = "s3cret-key"

pytestmark = [
    pytest.mark.filterwarnings("ignore:Qdrant's local mode:UserWarning"),
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning"),
]


@pytest.fixture
def fake() -> Iterator[FakeQdrant]:
    with FakeQdrant() as fake:
        yield fake


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the store would have waited between tries."""
    naps: list[float] = []
    monkeypatch.setattr("mlr_rag_qdrant.connection.time", SimpleNamespace(sleep=naps.append))
    return naps


def opened(fake: FakeQdrant, dimension: int | None = 8, vectors: int = 1, **options: Any) -> QdrantStore:
    return QdrantStore.open(f"{fake.place}/documents", dimension=dimension, vectors_per_document=vectors, **options)


def ids_of(store: VectorStore) -> set[str]:
    return {record.document.id for batch in store.scan() for record in batch}


class TestLocations:
    @pytest.mark.parametrize(
        ("location", "expected"),
        [
            (":memory:", Memory("documents")),
            (":memory:/notes", Memory("notes")),
            ("//host/notes", Server("host", 6333, "", "notes", False)),
            ("//host:80/notes", Server("host", 80, "", "notes", False)),
            ("//[::1]:6333/notes", Server("[::1]", 6333, "", "notes", False)),
            ("//host/behind/proxy/notes", Server("host", 6333, "/behind/proxy", "notes", False)),
            ("/data/kb/notes", Folder(Path("/data/kb").resolve(), "notes")),
            ("./kb/notes", Folder(Path("kb").resolve(), "notes")),
        ],
    )
    def test_what_is_one(self, location: str, expected: Any) -> None:
        assert parse_location(location) == expected

    @pytest.mark.parametrize(
        "location",
        ["", "notes", "./notes", "/notes", "//host", "//host/", "//host:6333/", "//host:port/notes", "//host:0/notes",
         "//host:99999/notes", "///notes", "// host/notes"],
    )  # fmt: skip
    def test_what_is_none(self, location: str) -> None:
        with pytest.raises(InvalidInputError, match="qdrant://host:6333/name"):
            parse_location(location)

    @pytest.mark.parametrize("name", ["no", "a--b", "a..b", "-abc", "abc-", "a b c", "x" * 241])
    def test_names_that_not_every_store_takes(self, name: str) -> None:
        with pytest.raises(InvalidInputError, match="not a name"):
            parse_location(f"//host/{name}")
        with pytest.raises(InvalidInputError, match="not a name"):
            QdrantStore(QdrantClient(":memory:"), name, 8)

    @pytest.mark.parametrize(
        "location",
        [
            f"//user:{SECRET}@host/notes", f"//host/notes?api-key={SECRET}", f"//host/notes#{SECRET}",
            f"https://user:{SECRET}@host/notes", f"user:{SECRET}@host/notes", f"http://{SECRET}/notes",
        ],
    )  # fmt: skip
    def test_credentials_in_a_url_are_refused_and_not_repeated(self, location: str) -> None:
        with pytest.raises(InvalidInputError, match="QDRANT_API_KEY") as refused:
            parse_location(location)
        assert SECRET not in "".join(traceback.format_exception(refused.value)).replace(location, "")
        assert SECRET not in str(refused.value)

    def test_urls_open_what_they_name(self, fake: FakeQdrant, tmp_path: Path) -> None:
        for url in (f"qdrant:{fake.place}/notes", f"qdrant:{tmp_path / 'kb' / 'notes'}"):
            with closing(open_store(url, dimension=8)) as store:
                store.upsert(records(3))
                assert store.url == url
            with closing(open_store(url)) as store:
                assert store.count() == 3
        with closing(open_store("qdrant::memory:", dimension=8)) as one:
            one.upsert(records(3))
            with closing(open_store("qdrant::memory:", dimension=8)) as other:
                assert other.count() == 0

    def test_tls(self) -> None:
        assert parse_location("//host/notes", secure=True).url == "qdrant+https://host:6333/notes"
        with pytest.raises(InvalidInputError, match="qdrant\\+https"):
            open_store("qdrant+https:./kb/notes", dimension=8)

    @pytest.mark.parametrize("location", [":memory:/notes", "kb/notes", "//127.0.0.1:{port}/notes"])
    def test_what_must_exist(
        self, location: str, fake: FakeQdrant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(StoreNotFoundError):
            QdrantStore.open(location.format(port=fake.port), dimension=None)
        assert list(tmp_path.iterdir()) == []
        assert fake.created == {}

    def test_an_unknown_option(self) -> None:
        with pytest.raises(InvalidInputError, match="replicas"):
            QdrantStore.open(":memory:", dimension=8, replicas=3)


class TestOwnClient:
    def test_it_is_used_and_not_closed(self) -> None:
        client = QdrantClient(":memory:")
        one, other = QdrantStore(client, "notes", 8), QdrantStore(client, "notes")
        one.upsert(records(3))
        assert (other.count(), one.url) == (3, "qdrant::memory:/notes")
        for store in (one, other):
            store.close()
        assert client.get_collections().collections != []

    def test_the_url_of_a_server(self, fake: FakeQdrant) -> None:
        client = QdrantClient(url=f"http://127.0.0.1:{fake.port}", api_key=SECRET, check_compatibility=False)
        with closing(QdrantStore(client, "notes", 8)) as store:
            assert store.url == f"qdrant:{fake.place}/notes"
        assert {call.api_key for call in fake.calls} == {SECRET}

    def test_after_its_owner_closed_it(self, fake: FakeQdrant, tmp_path: Path) -> None:
        for options in ({"path": str(tmp_path / "kb")}, {"port": fake.port, "host": "127.0.0.1"}):
            client = QdrantClient(**options, check_compatibility=False)
            store = QdrantStore(client, "notes", 8)
            client.close()
            with pytest.raises(StoreClosedError):
                store.count()


class TestCredentials:
    def test_the_key_of_the_environment_is_sent_and_shown_nowhere(
        self, fake: FakeQdrant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake.api_key = SECRET
        monkeypatch.setenv("QDRANT_API_KEY", SECRET)
        with closing(opened(fake)) as store:
            store.upsert(records(3))
            store.write_info({"n": 1})
            assert store.count() == 3
            assert SECRET not in f"{store!r} {store.url} {vars(store)} {vars(store._connection)}"
        stored = json.dumps([call.body for call in fake.calls])
        assert SECRET not in stored

    def test_a_wrong_key_is_refused_and_shown_nowhere(
        self, fake: FakeQdrant, monkeypatch: pytest.MonkeyPatch, naps: list[float]
    ) -> None:
        fake.api_key = "another"
        monkeypatch.setenv("QDRANT_API_KEY", SECRET)
        with pytest.raises(StoreDeniedError, match="QDRANT_API_KEY") as denied:
            opened(fake)
        assert SECRET not in "".join(traceback.format_exception(denied.value))
        assert naps == [], "nobody becomes welcome by knocking again"

    def test_none(self, fake: FakeQdrant, monkeypatch: pytest.MonkeyPatch) -> None:
        fake.api_key = SECRET
        monkeypatch.delenv("QDRANT_API_KEY", raising=False)
        with pytest.raises(StoreDeniedError, match="Must provide an API key"):
            opened(fake)


DOT = models.VectorParams(size=8, distance=models.Distance.DOT)
OURS = {"mlr_rag": json.dumps({"format": 1, "dimension": 8, "vectors_per_document": 1, "tenants": False})}


class TestSomebodyElses:
    """Nothing of theirs is changed."""

    @pytest.fixture(params=["local", "server"])
    def client(self, request: pytest.FixtureRequest, fake: FakeQdrant) -> QdrantClient:
        if request.param == "local":
            return QdrantClient(":memory:")
        return QdrantClient(host="127.0.0.1", port=fake.port, check_compatibility=False)

    def test_a_collection_of_that_name(self, client: QdrantClient) -> None:
        client.create_collection("notes", vectors_config=DOT)
        for dimension in (8, None):
            with pytest.raises(StoreCorruptError, match="notes was not made by mlr_rag"):
                QdrantStore(client, "notes", dimension)
        assert [found.name for found in client.get_collections().collections] == ["notes"]
        assert client.get_aliases().aliases == []

    def test_a_collection_with_the_name_of_a_generation(self, client: QdrantClient) -> None:
        client.create_collection("notes--1", vectors_config=DOT, metadata={"theirs": 1})
        with pytest.raises(StoreCorruptError, match="notes--1 was not made by mlr_rag"):
            QdrantStore(client, "notes", 8)
        assert client.get_collection("notes--1").config.metadata == {"theirs": 1}

    def test_an_alias_of_that_name(self, client: QdrantClient) -> None:
        client.create_collection("theirs", vectors_config=DOT)
        create = models.CreateAlias(collection_name="theirs", alias_name="notes")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
        with pytest.raises(StoreCorruptError, match="an alias of theirs"):
            QdrantStore(client, "notes", 8)
        assert [alias.collection_name for alias in client.get_aliases().aliases] == ["theirs"]

    def test_dropping_leaves_it(self, client: QdrantClient) -> None:
        store = QdrantStore(client, "notes", 8)
        client.create_collection("notes--7", vectors_config=DOT)
        assert store.generations() == [1]
        for call in (lambda: store.beside(7, 8), lambda: store.switch(7)):
            with pytest.raises(StoreError):
                call()
        store.drop()
        assert [found.name for found in client.get_collections().collections] == ["notes--7"]

    @pytest.mark.parametrize(
        "vectors",
        [
            models.VectorParams(size=8, distance=models.Distance.COSINE),
            models.VectorParams(size=9, distance=models.Distance.DOT),
            {"named": DOT},
            models.VectorParams(
                size=8,
                distance=models.Distance.DOT,
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            ),
        ],
    )
    def test_other_vectors_than_described(self, client: QdrantClient, vectors: Any) -> None:
        client.create_collection("notes--1", vectors_config=vectors, metadata=OURS)
        with pytest.raises(StoreCorruptError, match="other vectors than its description"):
            QdrantStore(client, "notes", 8)

    @pytest.mark.parametrize("said", ["{", json.dumps({"format": 2}), json.dumps({"format": 1}), "7"])
    def test_a_description_that_cannot_be_used(self, client: QdrantClient, said: str) -> None:
        client.create_collection("notes--1", vectors_config=DOT, metadata={"mlr_rag": said})
        with pytest.raises(StoreCorruptError, match="description of collection notes--1"):
            QdrantStore(client, "notes", 8)

    def test_no_alias_and_several_generations(self, client: QdrantClient) -> None:
        for number in (1, 2):
            client.create_collection(f"notes--{number}", vectors_config=DOT, metadata=OURS)
        with pytest.raises(StoreCorruptError, match="notes--1, notes--2"):
            QdrantStore(client, "notes", 8)


class TestGenerations:
    def test_names_and_alias(self, fake: FakeQdrant) -> None:
        with closing(opened(fake)) as store, closing(store.beside(2, 16)) as side:
            assert [found.name for found in fake.client.get_collections().collections] == [
                "documents--1",
                "documents--2",
            ]
            side.switch(2)
            assert len(fake.named("/collections/aliases")[-1].body["actions"]) == 2, "moved in one request"
            assert fake.client.get_aliases().aliases[0].collection_name == "documents--2"

    def test_another_shape_is_refused_before_anything_is_written(self, fake: FakeQdrant) -> None:
        opened(fake).close()
        before = len([call for call in fake.calls if call.method != "GET"])
        with pytest.raises(ModelMismatchError, match=r"found 8 dimensions.*expected 16 dimensions"):
            opened(fake, 16)
        assert len([call for call in fake.calls if call.method != "GET"]) == before

    def test_a_number_that_is_none(self, fake: FakeQdrant) -> None:
        with closing(opened(fake)) as store, pytest.raises(InvalidInputError, match="1 or more"):
            store.beside(0, 8)

    @pytest.mark.parametrize("method", ["update_collection_aliases", "create_payload_index"])
    def test_a_making_that_was_cut_short_is_finished(self, fake: FakeQdrant, method: str, naps: list[float]) -> None:
        """The connection goes after the collection was made: no alias, no index."""
        route = {"update_collection_aliases": "/aliases", "create_payload_index": "/index"}[method]
        answer = fake.answer
        fake.answer = lambda call: (503, "gone") if call.path.endswith(route) and call.body else answer(call)  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailableError):
            opened(fake)
        fake.answer = answer  # type: ignore[method-assign]
        with closing(opened(fake)) as store:
            assert (store.generations(), store.current(), store.count()) == ([1], 1, 0)
        assert fake.indexes["documents--1"].keys() == {"tokens"}

    @pytest.mark.parametrize("current", [True, False])
    def test_a_drop_that_was_cut_short_is_finished(self, fake: FakeQdrant, current: bool, naps: list[float]) -> None:
        store = opened(fake)
        side = store.beside(2, 8)
        store.upsert(records(3))
        fake.answer, answer = (  # type: ignore[method-assign]
            lambda call: (503, "gone") if call.method == "DELETE" else answer(call),
            fake.answer,
        )
        with pytest.raises(StoreUnavailableError):
            (store if current else side).drop()
        fake.answer = answer  # type: ignore[method-assign]
        if current:
            with closing(opened(fake)) as again:
                assert (again.generations(), again.count()) == ([1], 0)
        else:
            assert store.generations() == [1]
            with closing(store.beside(2, 16)) as again:
                assert (again.dimension, again.info) == (16, None)

    def test_a_collection_that_is_made_twice_at_once(self, fake: FakeQdrant) -> None:
        """The answer to the making is lost; the second try finds the collection there."""
        fake.lives, fake.mute = 3, True
        answer = fake.answer

        def once(call: Any) -> Any:
            try:
                return answer(call)
            finally:
                if call.method == "PUT":
                    fake.lives = None

        fake.answer = once  # type: ignore[method-assign]
        with closing(opened(fake)) as store:
            assert store.generations() == [1]

    def test_a_server_that_keeps_no_metadata(self, fake: FakeQdrant) -> None:
        fake.forgets = True
        with pytest.raises(StoreError, match=r"1\.16"):
            opened(fake)
        assert fake.client.get_collections().collections == []


class TestFailingServer:
    def test_unreachable(self, naps: list[float]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(StoreUnavailableError, match=rf"127\.0\.0\.1:{port}.*run the same again"):
            QdrantStore.open(f"//127.0.0.1:{port}/notes", dimension=8)
        assert len(naps) == 4
        assert naps[0] < naps[1] < naps[2] < naps[3] < 2.1, "each pause is longer"

    @pytest.mark.parametrize("status", [429, 500, 502, 503])
    def test_it_recovers(self, fake: FakeQdrant, status: int, naps: list[float]) -> None:
        with closing(opened(fake)) as store:
            for call in (lambda: store.upsert(records(3)), store.count, lambda: store.delete(ids=["id 1"])):
                fake.answers = [status] * 4
                call()
                assert fake.answers == []
            assert ids_of(store) == {"id 0", "id 2"}

    def test_it_does_not(self, fake: FakeQdrant, naps: list[float]) -> None:
        with closing(opened(fake)) as store:
            fake.answers = [500] * 5
            with pytest.raises(StoreUnavailableError, match="HTTP 500: this is what the test wants"):
                store.upsert(records(3))
            assert store.count() == 0

    def test_it_says_how_long_to_wait(self, fake: FakeQdrant, naps: list[float]) -> None:
        with closing(opened(fake)) as store:
            fake.answers, fake.retry_after = [429, 429], 7
            store.count()
            fake.answers, fake.retry_after = [429], 10_000
            store.count()
        assert naps == [7, 7, 60]

    @pytest.mark.parametrize("mute", [False, True])
    def test_it_dies_in_the_middle_of_a_call(self, fake: FakeQdrant, naps: list[float], mute: bool) -> None:
        """Whether the last batch was done before the connection went or not."""
        written = records(2000)
        with closing(opened(fake)) as store:
            fake.lives, fake.mute = 3, mute
            with pytest.raises(StoreUnavailableError):
                store.upsert(written)
            fake.lives = None
            kept = ids_of(store)
            assert kept >= {record.document.id for record in written[: 3 * 256]}
            assert len(kept) == (4 if mute else 3) * 256
            store.upsert(written)
            assert store.count() == 2000

    def test_a_request_it_refuses(self, fake: FakeQdrant, naps: list[float]) -> None:
        with closing(opened(fake)) as store:
            fake.answers = [400]
            with pytest.raises(StoreError, match="HTTP 400: this is what the test wants"):
                store.count()
        assert naps == []

    def test_it_is_no_qdrant(self, fake: FakeQdrant) -> None:
        fake.answer = lambda call: (200, {"hello": "world"})  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="Check that a Qdrant server"):
            opened(fake)

    def test_the_collection_goes_away(self, fake: FakeQdrant) -> None:
        with closing(opened(fake)) as store:
            fake.client.delete_collection("documents--1")
            for call in (store.count, lambda: store.upsert(records(1)), lambda: store.info, store.current):
                with pytest.raises(StoreClosedError, match="dropped"):
                    call()
            assert fake.client.get_collections().collections == []

    def test_requests_stay_below_what_a_server_takes(self, fake: FakeQdrant) -> None:
        texts = [Document("\x01" * 1_500_000, str(i)) for i in range(6)]
        with closing(opened(fake)) as store:
            store.upsert([Record(document, row) for document, row in zip(texts, unit_rows(6), strict=True)])
            assert store.get(["5"])[0].document == texts[5]
        sizes = [len(json.dumps(call.body)) for call in fake.calls if call.path.endswith("/points")]
        assert max(sizes) < 32 << 20
        many = [Record(Document("text", str(i)), np.ones(4096, np.float32) / 64) for i in range(600)]
        assert max(len(json.dumps([r.vector.tolist() for r in batch])) for batch in batches(many)) < 32 << 20
        assert sum(len(batch) for batch in batches(many)) == 600

    def test_a_forked_process_gets_a_connection_of_its_own(
        self, fake: FakeQdrant, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with closing(opened(fake)) as store:
            before, parent = store._connection._client, os.getpid()
            monkeypatch.setattr("mlr_rag_qdrant.connection.os.getpid", lambda: parent + 1)
            assert store.count() == 0
            assert store._connection._client is not before
            assert store._connection._client.init_options == before.init_options


class TestAnswersOverGrpc:
    class Problem(grpc.RpcError, grpc.Call):
        def __init__(self, code: grpc.StatusCode) -> None:
            self._code = code

        def code(self) -> grpc.StatusCode:
            return self._code

        def details(self) -> str:
            return "why"

    Problem.__abstractmethods__ = frozenset()

    @pytest.mark.parametrize(
        ("code", "expected", "again"),
        [
            (grpc.StatusCode.UNAVAILABLE, StoreUnavailableError, True),
            (grpc.StatusCode.DEADLINE_EXCEEDED, StoreUnavailableError, True),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, StoreUnavailableError, True),
            (grpc.StatusCode.UNAUTHENTICATED, StoreDeniedError, False),
            (grpc.StatusCode.PERMISSION_DENIED, StoreDeniedError, False),
            (grpc.StatusCode.NOT_FOUND, StoreNotFoundError, False),
            (grpc.StatusCode.INVALID_ARGUMENT, StoreError, False),
        ],
    )
    def test_mean_the_same(self, code: grpc.StatusCode, expected: type[MlrRagError], again: bool) -> None:
        problem = self.Problem(code)
        assert transient(problem) is again
        assert type(of_server(problem, "here")) is expected
        assert f"{code.name}: why" in str(of_server(problem, "here"))


class TestOptions:
    def test_of_a_new_collection(self, fake: FakeQdrant) -> None:
        options = {"shard_number": 3, "replication_factor": 2, "write_consistency_factor": 2, "on_disk": True}
        with closing(opened(fake, **options, quantization="scalar", indexed_fields=("year", "price"))) as store:
            created = fake.created["documents--1"]
            assert {name: created.get(name) for name in options} == options | {"on_disk": None}
            assert created["vectors"] == {"size": 8, "distance": "Dot", "on_disk": True}
            assert created["quantization_config"]["scalar"]["type"] == "int8"
            assert sorted(fake.indexes["documents--1"].values()) == ["float", "float", "keyword"]
            store.query(unit_rows(1)[0], 3)
            searched = fake.named("/points/query")[-1].body["params"]
            assert searched == {"quantization": {"rescore": True, "oversampling": 2.0}}
            with closing(store.beside(2, 8)):
                assert fake.created["documents--2"]["shard_number"] == 3

    def test_binary_quantization(self, fake: FakeQdrant) -> None:
        with closing(opened(fake, quantization="binary", rescore=False, oversampling=3)) as store:
            store.query(unit_rows(1)[0], 3)
        assert "binary" in fake.created["documents--1"]["quantization_config"]
        searched = fake.named("/points/query")[-1].body["params"]
        assert searched == {"quantization": {"rescore": False, "oversampling": 3.0}}

    def test_an_index_that_is_asked_for_later(self, fake: FakeQdrant) -> None:
        opened(fake).close()
        opened(fake, None, indexed_fields=["year"]).close()
        opened(fake, None, indexed_fields=["year"]).close()
        assert len(fake.named("/index")) == 2, "tokens once, year once"

    def test_several_vectors_a_document(self, fake: FakeQdrant) -> None:
        with closing(opened(fake, 8, 3)) as store:
            store.query(unit_rows(1)[0], 3)
        config = fake.created["documents--1"]["vectors"]["multivector_config"]
        assert config == {"comparator": "max_sim"}
        assert np.shape(fake.named("/points/query")[-1].body["query"]["nearest"]) == (1, 8)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"shard_number": 0}, {"replication_factor": "2"}, {"write_consistency_factor": True},
            {"quantization": "product"}, {"oversampling": 0.5}, {"tenant": ""}, {"indexed_fields": "year"},
        ],
    )  # fmt: skip
    def test_that_are_none(self, wrong: dict[str, Any], fake: FakeQdrant) -> None:
        with pytest.raises(InvalidInputError):
            opened(fake, **wrong)
        assert fake.calls == []


class TestTenants:
    @pytest.fixture(params=["local", "server"])
    def tenants(self, request: pytest.FixtureRequest, fake: FakeQdrant) -> Iterator[tuple[QdrantStore, QdrantStore]]:
        if request.param == "local":
            client = QdrantClient(":memory:")
            pair = tuple(QdrantStore(client, "documents", 8, tenant=name) for name in ("a", "b"))
        else:
            pair = tuple(opened(fake, tenant=name) for name in ("a", "b"))
        yield pair
        for store in pair:
            store.close()

    def test_see_only_their_own(self, tenants: tuple[QdrantStore, QdrantStore]) -> None:
        a, b = tenants
        a.upsert([Record(Document("of a", f"id {i}", {"n": i}), row) for i, row in enumerate(unit_rows(5))])
        b.upsert([Record(Document("of b", f"id {i}", {"n": i}), row) for i, row in enumerate(unit_rows(3))])
        assert (a.count(), b.count()) == (5, 3)
        assert {r.document.text for r in a.get(["id 0", "id 1"])} == {"of a"}
        assert {m.record.document.text for m in b.query(unit_rows(1)[0], 9)} == {"of b"}
        assert {m.record.document.text for m in b.query(unit_rows(1)[0], 9, parse({"n": {"$gte": 0}}))} == {"of b"}
        assert {r.document.text for batch in a.scan() for r in batch} == {"of a"}
        assert b.hashes(["id 4"]) == {}
        assert b.delete(ids=["id 4", "id 0"]) == 1
        assert b.delete(filter=parse({"n": {"$gte": 0}})) == 2
        assert (a.count(), b.count()) == (5, 0)

    def test_dropping_one_leaves_the_others(self, tenants: tuple[QdrantStore, QdrantStore]) -> None:
        a, b = tenants
        a.upsert(records(5))
        b.upsert(records(5))
        a.drop()
        assert b.count() == 5
        with pytest.raises(StoreClosedError):
            a.count()

    def test_generations_belong_to_all(self, tenants: tuple[QdrantStore, QdrantStore]) -> None:
        a, _ = tenants
        assert (a.generations(), a.current()) == ([1], 1)
        for call in (lambda: a.switch(1), lambda: a.beside(2, 8)):
            with pytest.raises(InvalidInputError, match="all tenants"):
                call()

    def test_no_tenant_is_not_all_of_them(self, fake: FakeQdrant) -> None:
        opened(fake, tenant="a").close()
        with pytest.raises(InvalidInputError, match="shared by tenants"):
            opened(fake)
        QdrantStore.open(f"{fake.place}/alone", dimension=8).close()
        with pytest.raises(InvalidInputError, match="without tenants"):
            QdrantStore.open(f"{fake.place}/alone", dimension=8, tenant="a")
        assert fake.indexes["documents--1"]["tenant"] == {"type": "keyword", "is_tenant": True}
        assert fake.created["documents--1"]["hnsw_config"] == {"m": 0, "payload_m": 16}


class TestAsync:
    async def test_finds_the_same(self, fake: FakeQdrant) -> None:
        with closing(opened(fake)) as store:
            store.upsert(records(300))
            row, condition = unit_rows(1)[0], parse({"even": True})
            found = await asyncio.gather(*(store.aquery(row, 5, condition, with_vectors=True) for _ in range(200)))
            expected = store.query(row, 5, condition, with_vectors=True)
            assert all([m.record.document for m in one] == [m.record.document for m in expected] for one in found)
            assert all([m.score for m in one] == [m.score for m in expected] for one in found)
            assert found[0][0].record.vector is not None

    async def test_ties_are_left_out_by_id(self, fake: FakeQdrant) -> None:
        row = unit_rows(1)[0]
        with closing(opened(fake)) as store:
            store.upsert([Record(Document("same", f"{i:03}"), row) for i in reversed(range(50))])
            assert [match.record.document.id for match in await store.aquery(row, 3)] == ["000", "001", "002"]

    def test_in_one_event_loop_after_another(self, fake: FakeQdrant) -> None:
        with closing(opened(fake)) as store:
            store.upsert(records(3))
            for _ in range(3):
                assert len(asyncio.run(store.aquery(unit_rows(1)[0], 2))) == 2

    async def test_of_local_mode(self) -> None:
        with closing(QdrantStore.open(":memory:", dimension=8)) as store:
            store.upsert(records(3))
            assert await store.aquery(unit_rows(1)[0], 2) == store.query(unit_rows(1)[0], 2)

    async def test_of_a_client_of_ones_own(self, fake: FakeQdrant) -> None:
        options = {"url": f"http:{fake.place}", "api_key": SECRET, "check_compatibility": False}
        own = AsyncQdrantClient(**options)
        with closing(QdrantStore(QdrantClient(**options), "notes", 8, async_client=own)) as store:
            assert await store.aquery(unit_rows(1)[0], 2) == []
        await own.get_collections()
        assert {call.api_key for call in fake.calls} == {SECRET}

    async def test_failures(self, fake: FakeQdrant, monkeypatch: pytest.MonkeyPatch) -> None:
        sleep = asyncio.sleep
        monkeypatch.setattr("mlr_rag_qdrant.connection.asyncio.sleep", lambda _: sleep(0))
        row = unit_rows(1)[0]
        store = opened(fake)
        fake.answers = [500] * 4
        assert await store.aquery(row, 2) == []
        fake.answers = [500] * 5
        with pytest.raises(StoreUnavailableError):
            await store.aquery(row, 2)
        with pytest.raises(InvalidInputError, match="query vector"):
            await store.aquery(row[:3], 2)
        fake.client.delete_collection("documents--1")
        with pytest.raises(StoreClosedError, match="dropped"):
            await store.aquery(row, 2)
        store.close()
        with pytest.raises(StoreClosedError):
            await store.aquery(row, 2)


def test_writes_are_acknowledged_when_they_are_done() -> None:
    """Durability on a server rests on it."""
    with FakeQdrant() as fake, closing(QdrantStore.open(f"{fake.place}/documents", dimension=8)) as store:
        store.upsert(records(3))
        store.delete(ids=["id 0"])
        store.delete(filter=parse({"n": 1}))
        writes = [
            call
            for call in fake.calls
            if call.path.endswith("/points/delete") or (call.method == "PUT" and call.path.endswith("/points"))
        ]
        assert len(writes) == 3
        assert all("wait=true" in call.query for call in writes)
