"""Finding the adapter of a framework by name, so that nobody pays for one that is not used."""

from __future__ import annotations

from importlib.metadata import entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlr_rag.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from mlr_rag.retriever import Retriever

ENTRY_POINTS = "mlr_rag.frameworks"


def adapter(framework: str) -> ModuleType:
    """The adapter's module.

    Args:
        framework: The name of its entry point, which is that of the extra too.

    Raises:
        MissingExtraError: the adapter, or the framework itself, is not installed.
    """
    try:
        (entry,) = entry_points(group=ENTRY_POINTS, name=framework)
        module: ModuleType = entry.load()
    except (ModuleNotFoundError, ValueError) as problem:  # another ImportError is an old version's, and says so
        raise MissingExtraError(
            f"{framework} needs a package that is not installed",
            found=f"no {getattr(problem, 'name', None) or framework}",
            remedy=f"pip install 'mlr-rag[{framework}]'",
        ) from problem
    return module


def check_retriever(found: Any) -> Retriever:
    """The Retriever, refused where it is anything else, such as a URL."""
    from mlr_rag.retriever import Retriever

    if not isinstance(found, Retriever):
        raise InvalidInputError(
            "not a Retriever",
            found=f"{type(found).__name__} {found!r:.80}",
            expected="an open mlr_rag.Retriever",
            remedy="Use open(url), or Retriever.open(url) first.",
        )
    return found
