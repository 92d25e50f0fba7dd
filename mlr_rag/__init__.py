"""mlr_rag: the retriever component of a RAG application.

>>> from mlr_rag import Retriever
>>> kb = Retriever.open("./kb")
>>> kb.add(["Paris is the capital of France.", "Water boils at 100 degrees Celsius."])
>>> kb.search("What is France's capital?", k=1)[0].document.text
'Paris is the capital of France.'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlr_rag.lazy import getter

if TYPE_CHECKING:
    from mlr_rag.documents import Document, Hit
    from mlr_rag.errors import (
        InvalidInputError,
        MlrRagError,
        ModelError,
        ModelMismatchError,
        StoreError,
        StoreLockedError,
    )
    from mlr_rag.model import MLRModel
    from mlr_rag.retriever import Retriever
    from mlr_rag.specializing.workflow import specialize

__version__ = "0.1.0"

_HOME = {
    "Document": "mlr_rag.documents",
    "Hit": "mlr_rag.documents",
    "InvalidInputError": "mlr_rag.errors",
    "MLRModel": "mlr_rag.model",
    "MlrRagError": "mlr_rag.errors",
    "ModelError": "mlr_rag.errors",
    "ModelMismatchError": "mlr_rag.errors",
    "Retriever": "mlr_rag.retriever",
    "StoreError": "mlr_rag.errors",
    "StoreLockedError": "mlr_rag.errors",
    "specialize": "mlr_rag.specializing.workflow",
}
__all__ = [
    "Document",
    "Hit",
    "InvalidInputError",
    "MLRModel",
    "MlrRagError",
    "ModelError",
    "ModelMismatchError",
    "Retriever",
    "StoreError",
    "StoreLockedError",
    "__version__",
    "specialize",
]


__getattr__ = getter(__name__, _HOME)  # importing mlr_rag itself pulls in neither torch nor a store


def __dir__() -> list[str]:
    return sorted(__all__)
