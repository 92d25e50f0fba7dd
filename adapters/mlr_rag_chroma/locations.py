"""What follows `chroma:` in a URL: a folder, a server, or this process's memory; and a collection's name.

./folder/name           a folder, of any number of collections
//host:8000/name        a server
:memory:/name           this process's memory; without a name, a collection of its own
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mlr_rag.errors import InvalidInputError
from mlr_rag.stores import check_name

MEMORY = ":memory:"
_EXPECTED = "chroma:./folder/name, chroma://host:8000/name or chroma::memory:/name"


@dataclass(frozen=True)
class Server:
    """Where a server is; without credentials."""

    host: str
    port: int
    secure: bool

    @property
    def url(self) -> str:
        """The part of a collection's URL before its name."""
        return f"{'chroma+https' if self.secure else 'chroma'}://{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """What a client is given: it would leave out the port of a host that begins with "http" otherwise."""
        return f"{'https' if self.secure else 'http'}://{self.host}:{self.port}"


def folder_location(location: str) -> tuple[Path, str]:
    """The folder and the name in `./folder/name`."""
    if not re.search(r"[/\\][^/\\]+$", location):
        raise InvalidInputError("no folder and name of a collection", found=f"chroma:{location}", expected=_EXPECTED)
    check_name(Path(location).name)
    return Path(location).parent, Path(location).name


def server_location(location: str, secure: bool) -> tuple[Server, str]:
    """The server and the name in `//host:8000/name`."""
    if re.search("[@?#]", location):
        raise InvalidInputError(
            "the URL of a server holds more than its address",
            found="a user, a password or parameters, not repeated here",
            expected=_EXPECTED,
            remedy="Set CHROMA_AUTH_TOKEN in the environment instead.",
        )
    try:
        parts = urlsplit(f"http:{location}")
        host, port, name = parts.hostname, parts.port, parts.path.strip("/")
    except ValueError:  # of the port
        host = port = None
        name = ""
    if not host or port == 0 or not name or "/" in name:
        raise InvalidInputError("no server and name of a collection", found=location, expected=_EXPECTED)
    check_name(name)
    return Server(f"[{host}]" if ":" in host else host, port or (443 if secure else 8000), secure), name


def memory_location(location: str) -> str:
    """The name in `:memory:/name`, "" where there is none."""
    rest = location.removeprefix(MEMORY)
    if rest and (not rest.startswith("/") or rest == "/"):
        raise InvalidInputError("no collection in memory", found=f"chroma:{location}", expected=_EXPECTED)
    if rest:
        check_name(rest[1:])
    return rest[1:]
