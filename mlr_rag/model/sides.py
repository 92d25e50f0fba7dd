"""The two sides of a model: the modules that documents go through, and those that only queries do."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from mlr_rag.errors import InvalidInputError
from mlr_rag.model.query_adapter import QueryAdapter
from mlr_rag.model.twin import TwinTransformer


def document_side(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules that move documents' vectors: the model as it would be without a query side of its own."""
    kept = [module for module in modules if not isinstance(module, QueryAdapter)]
    return [module.document_side() if isinstance(module, TwinTransformer) else module for module in kept]


def query_side(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The modules that move queries' vectors alone: the queries' Transformer, the adapter, or none."""
    only = [module for module in modules if isinstance(module, (QueryAdapter, TwinTransformer))]
    return [module.query if isinstance(module, TwinTransformer) else module for module in only]


def freeze_documents(model: Iterable[nn.Module]) -> None:
    """Leave only the query side to be trained.

    Raises:
        InvalidInputError: the model has none.
    """
    queries = query_side(model)
    if not queries:
        raise InvalidInputError(
            "queries and documents go through the same weights",
            found=[type(module).__name__ for module in model],
            expected="a part that only queries go through",
            remedy="Use model.add_query_adapter(), or MLRModel.from_pretrained(base, separate_query_encoder=True).",
        )
    for module in model:
        module.requires_grad_(False)
    for module in queries:
        module.requires_grad_(True)
