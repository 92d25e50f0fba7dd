"""A stand-in for a Qdrant server: its REST routes on 127.0.0.1, over qdrant-client's own local mode.

It proves what goes over the wire: routes, JSON, credentials, retries, the async client, the options of a new
collection. It proves nothing of the engine: not its search, its filters on disk, its durability or its cluster. For
those the suite runs on a real server, where QDRANT_URL names one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from qdrant_client import QdrantClient, models

_POINTS = TypeAdapter(models.PointInsertOperations)
_SELECTOR = TypeAdapter(models.PointsSelector)


@dataclass
class Call:
    """A request that came."""

    method: str
    path: str
    body: Any
    api_key: str | None
    query: str = ""


@dataclass
class FakeQdrant:
    """The server, and what to do to whom.

    Attributes:
        api_key: The only one that is accepted; None accepts all.
        answers: Statuses to answer the next requests with, in place of doing them.
        retry_after: What a 429 asks for, in seconds.
        lives: How many requests it takes before it closes all connections without an answer; None is forever.
        mute: Whether the dying one still does what it does not answer.
        forgets: Whether it keeps no metadata of collections, as versions before 1.16.
        calls: What came.
        created: The body of the request that made each collection.
    """

    api_key: str | None = None
    answers: list[int] = field(default_factory=list)
    retry_after: int | None = None
    lives: int | None = None
    mute: bool = False
    forgets: bool = False
    calls: list[Call] = field(default_factory=list)
    created: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.lock = threading.RLock()
        self.indexes: dict[str, dict[str, Any]] = {}
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> FakeQdrant:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def place(self) -> str:
        return f"//127.0.0.1:{self.port}"

    def named(self, ending: str) -> list[Call]:
        """The calls to routes that end so."""
        return [call for call in self.calls if call.path.endswith(ending)]

    def answer(self, call: Call) -> tuple[int, Any]:
        """The status and the result, or what was wrong; raises ConnectionError to give none."""
        with self.lock:
            self.calls.append(call)
            if self.api_key is not None and call.api_key != self.api_key:
                return (401, "Must provide an API key or an Authorization bearer token")
            dying = self.lives is not None and self.lives <= 0
            if self.lives is not None:
                self.lives -= 1
            if dying and not self.mute:
                raise ConnectionError
            if self.answers:
                return self.answers.pop(0), "this is what the test wants"
            try:
                done = self._do(call)
            except ValueError as problem:
                missing = "not found" in str(problem)
                return (404 if missing else 409 if "already exists" in str(problem) else 400), str(problem)
            if dying:
                raise ConnectionError
            return 200, done

    def _do(self, call: Call) -> Any:
        parts = [unquote(part) for part in call.path.strip("/").split("/")]
        if parts == ["collections"]:
            return self.client.get_collections()
        if parts == ["aliases"]:
            return self.client.get_aliases()
        if parts == ["collections", "aliases"]:
            return self.client.update_collection_aliases(
                models.ChangeAliasesOperation.model_validate(call.body).actions
            )
        name, rest = parts[1], parts[2:]
        if not rest:
            return self._collection(call.method, name, call.body)
        if rest == ["index"]:
            self.client.get_collection(name)
            self.indexes.setdefault(name, {})[call.body["field_name"]] = call.body["field_schema"]
            return {"operation_id": 0, "status": "completed"}
        route: Callable[[str, Any], Any] = {
            (): self._upsert if call.method == "PUT" else self._retrieve,
            ("delete",): self._delete,
            ("count",): self._count,
            ("scroll",): self._scroll,
            ("query",): self._query,
        }[tuple(rest[1:])]
        return route(name, call.body)

    def _collection(self, method: str, name: str, body: Any) -> Any:
        if method == "GET":
            found = self.client.get_collection(name)
            kinds = self.indexes.get(name, {})
            found.payload_schema = {
                field: {"data_type": kind if isinstance(kind, str) else kind["type"], "points": 0}
                for field, kind in kinds.items()
            }
            return found
        if method == "DELETE":
            self.indexes.pop(name, None)
            return self.client.delete_collection(name)
        if method == "PATCH":
            return self.client.update_collection(name, metadata=body["metadata"])
        asked = models.CreateCollection.model_validate(body)
        self.created[name] = body
        metadata = None if self.forgets else asked.metadata
        return self.client.create_collection(name, vectors_config=asked.vectors, metadata=metadata)

    def _upsert(self, name: str, body: Any) -> Any:
        return self.client.upsert(name, _POINTS.validate_python(body).points)

    def _retrieve(self, name: str, body: Any) -> Any:
        asked = models.PointRequest.model_validate(body)
        return self.client.retrieve(name, asked.ids, asked.with_payload, asked.with_vector)

    def _delete(self, name: str, body: Any) -> Any:
        return self.client.delete(name, _SELECTOR.validate_python(body))

    def _count(self, name: str, body: Any) -> Any:
        return self.client.count(name, models.CountRequest.model_validate(body).filter)

    def _scroll(self, name: str, body: Any) -> Any:
        asked = models.ScrollRequest.model_validate(body)
        points, following = self.client.scroll(
            name,
            asked.filter,
            asked.limit,
            offset=asked.offset,
            with_payload=asked.with_payload,
            with_vectors=asked.with_vector,
        )
        return {"points": points, "next_page_offset": following}

    def _query(self, name: str, body: Any) -> Any:
        asked = models.QueryRequest.model_validate(body)
        return self.client.query_points(
            name,
            asked.query,
            query_filter=asked.filter,
            limit=asked.limit,
            with_payload=asked.with_payload,
            with_vectors=asked.with_vector,
        )


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that was killed is nothing to tell of."""


class _Handler(BaseHTTPRequestHandler):
    fake: FakeQdrant
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        url = urlsplit(self.path)
        call = Call(self.command, url.path, body, self.headers.get("api-key"), url.query)
        try:
            status, result = self.fake.answer(call)
        except ConnectionError:
            self.close_connection = True
            self.connection.close()
            return
        said = {"result": result, "status": "ok"} if status == 200 else {"status": {"error": result}}
        data = json.dumps(to_jsonable_python(said | {"time": 0.0})).encode()
        self.send_response(status)
        if status == 429 and self.fake.retry_after is not None:
            self.send_header("Retry-After", str(self.fake.retry_after))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_POST = do_PATCH = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Tests are silent."""
