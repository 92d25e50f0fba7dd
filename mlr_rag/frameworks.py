"""Finding the adapter of a framework by name, so that nobody pays for one that is not used; and what adapters share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlr_rag.documents import Document
from mlr_rag.errors import InvalidDocumentError, InvalidInputError, MissingExtraError

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


def check_options(options: Mapping[str, Any], known: Sequence[str], what: str, expected: str = "") -> None:
    """Refuse keyword arguments that are not known, which frameworks take in any number and drop in silence."""
    for name in options:
        if name not in known:
            raise InvalidInputError(
                f"{what} has no such option", found=name, expected=expected or ", ".join(known) or "none"
            )


def several(items: Any, kind: type, what: str) -> Iterable[Any]:
    """A framework's documents, refused where they are none or a single one: a pydantic model can be iterated over."""
    if not isinstance(items, Iterable) or isinstance(items, (str, kind)):
        raise InvalidDocumentError(f"no {what}s", found=type(items).__name__, expected=f"a list of {what}s")
    return items


def converted(
    items: Any, kind: type, convert: Callable[[Any], Document], what: str, whole: str = ""
) -> Iterator[Document]:
    """A framework's documents as ours; `what` they are called, and the `whole` name where that would be our own.

    Raises:
        InvalidDocumentError: names the one that cannot be by its place.
    """
    for place, item in enumerate(several(items, kind, what)):
        try:
            if not isinstance(item, kind):
                raise InvalidDocumentError(
                    f"not a {whole or what}", found=type(item).__name__, expected=f"{kind.__module__}.{kind.__name__}"
                )
            yield convert(item)
        except InvalidDocumentError as problem:
            raise problem.at(f"{what} {place:,}") from None
