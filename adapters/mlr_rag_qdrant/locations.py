"""The part of a URL after `qdrant:`, read: this process's memory, a folder on this machine, or a server.

    :memory:    :memory:/name    ./folder/name    //host/name    //host:6333/name

Credentials are no part of it: they come from the environment, QDRANT_API_KEY.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from qdrant_client import QdrantClient

from mlr_rag.errors import InvalidInputError
from mlr_rag.folders import resolved
from mlr_rag.stores import check_name

MEMORY = ":memory:"
DEFAULT_NAME = "documents"
DEFAULT_PORT = 6333
FORMS = "qdrant::memory:, qdrant:./folder/name, qdrant://host:6333/name or qdrant+https://host:6333/name"

_SERVER = re.compile(r"//(?P<host>[\w.-]+|\[[0-9a-fA-F:.]+\])(:(?P<port>\d+))?(?P<prefix>/.*)?/(?P<name>[^/]+)")
_SECRETS = re.compile(r"//.*[@?#]|[^/\\]*:[^/\\]*@|.*://")


@dataclass(frozen=True)
class Memory:
    """A collection of this process."""

    name: str

    @property
    def place(self) -> str:
        """Where that is."""
        return f"qdrant:{MEMORY}"

    @property
    def url(self) -> str:
        """What opens it again, empty."""
        return f"{self.place}/{self.name}"


@dataclass(frozen=True)
class Folder:
    """A collection in a folder of this machine."""

    path: Path
    name: str

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.path)

    @property
    def url(self) -> str:
        """What opens it again."""
        return f"qdrant:{self.path / self.name}"


@dataclass(frozen=True)
class Server:
    """A collection on a server; `prefix` is the path before its name, of a server behind a proxy."""

    host: str
    port: int | None
    prefix: str
    name: str
    secure: bool

    @property
    def place(self) -> str:
        """The server."""
        port = "" if self.port is None else f":{self.port}"
        return f"qdrant{'+https' * self.secure}://{self.host}{port}{self.prefix}"

    @property
    def url(self) -> str:
        """What opens it again, given the same environment."""
        return f"{self.place}/{self.name}"


Location: TypeAlias = Memory | Folder | Server


def parse(location: str, secure: bool = False) -> Location:
    """What a location means.

    Raises:
        InvalidInputError: it means nothing, or holds credentials, which are not repeated.
    """
    if _SECRETS.match(location) or (secure and re.search("[@?#]", location)):
        raise InvalidInputError(
            "a location of Qdrant holds more than a place and a name",
            expected=FORMS,
            remedy="Credentials come from the environment, QDRANT_API_KEY; options from QdrantStore.open.",
        )
    if secure or location.startswith("//"):
        found: Location = _server(location, secure)
    elif location.startswith(MEMORY):
        found = Memory(location.removeprefix(MEMORY).removeprefix("/") or DEFAULT_NAME)
    else:
        path = Path(location)
        if not path.name or not path.parent.name:
            raise _wrong(location)
        found = Folder(resolved(path.parent), path.name)
    check_name(found.name)
    return found


def of_client(client: QdrantClient, name: str) -> Location:
    """Where a client leads, and the name of a collection there."""
    options = client.init_options
    if options["location"] == MEMORY:
        return Memory(name)
    if options["path"] is not None:
        return Folder(resolved(Path(options["path"])), name)
    address = urlsplit(client.http.client.host)  # made of the client's options, without the credentials in them
    host = address.hostname or ""
    prefix = address.path.rstrip("/")
    return Server(f"[{host}]" if ":" in host else host, address.port, prefix, name, address.scheme == "https")


def _server(location: str, secure: bool) -> Server:
    parts = _SERVER.fullmatch(location)
    port = DEFAULT_PORT if parts is None or parts["port"] is None else int(parts["port"])
    if parts is None or not 0 < port < 65536:
        raise _wrong(location)
    return Server(parts["host"], port, parts["prefix"] or "", parts["name"], secure)


def _wrong(location: str) -> InvalidInputError:
    return InvalidInputError("not a location of Qdrant", found=location, expected=FORMS)
