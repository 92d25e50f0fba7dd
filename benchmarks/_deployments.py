"""The stores that are measured, by name, and how each is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._raw_clients import RawChroma, RawEdge, RawQdrant
from benchmarks._systems import Ours, System
from tests.chroma_server import ChromaServer

OURS, RAW = "ours", "raw"
NAMES = ("memory", "edge", "qdrant-memory", "qdrant-path", "chroma-ephemeral", "chroma-persistent", "chroma-server")

# Those that a killed process leaves behind, by the folder that they are in.
FOLDERS: dict[str, Callable[[Path], str]] = {
    "edge": lambda folder: f"edge:{folder}",
    "qdrant-path": lambda folder: f"qdrant:{folder}/documents",
    "chroma-persistent": lambda folder: f"chroma:{folder}/documents",
}


class Server(ChromaServer):
    """A real `chroma run` server."""

    def collection(self, name: str = "documents") -> str:
        """The URL of a collection there."""
        return f"chroma://127.0.0.1:{self.port}/{name}"

    @property
    def pid(self) -> int:
        """The running process's."""
        if self._process is None:
            raise RuntimeError("the server was not started")
        return self._process.pid


@contextmanager
def servers(*folders: Path) -> Iterator[list[Server]]:
    """Servers over these folders, running, and gone at the end."""
    made = [Server(folder) for folder in folders]
    try:
        for server in made:
            server.start()
        yield made
    finally:
        for server in made:
            server.kill()


@contextmanager
def deployed(name: str, scratch: Path) -> Iterator[dict[str, System]]:
    """Ours and the raw client, where there is one, each with a place of its own, and not open yet."""
    ours, raw = scratch / OURS, scratch / RAW
    match name:
        case "memory":
            yield {OURS: Ours("memory:")}
        case "edge":
            yield {OURS: Ours(FOLDERS[name](ours), ours), RAW: RawEdge(raw)}
        case "qdrant-memory":
            yield {OURS: Ours("qdrant::memory:"), RAW: RawQdrant()}
        case "qdrant-path":
            yield {OURS: Ours(FOLDERS[name](ours), ours), RAW: RawQdrant(raw)}
        case "chroma-ephemeral":
            yield {OURS: Ours("chroma::memory:"), RAW: RawChroma("EphemeralClient")}
        case "chroma-persistent":
            yield {OURS: Ours(FOLDERS[name](ours), ours), RAW: RawChroma("PersistentClient", raw, path=raw)}
        case "chroma-server":
            with servers(ours, raw) as (mine, theirs):
                yield {
                    OURS: Ours(mine.collection(), ours, mine.pid),
                    RAW: RawChroma("HttpClient", raw, theirs.pid, host="127.0.0.1", port=theirs.port),
                }
        case _:
            raise SystemExit(f"not a store: {name}; one of {', '.join(NAMES)}")
