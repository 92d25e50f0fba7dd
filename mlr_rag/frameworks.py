"""Finding the adapter of a framework by name, so that nobody pays for one that is not used."""

from __future__ import annotations

from importlib.metadata import entry_points
from types import ModuleType

from mlr_rag.errors import MissingExtraError

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
    except (ImportError, ValueError) as problem:
        raise MissingExtraError(
            f"{framework} needs a package that is not installed",
            found=f"no {getattr(problem, 'name', None) or framework}",
            remedy=f"pip install 'mlr-rag[{framework}]'",
        ) from problem
    return module
