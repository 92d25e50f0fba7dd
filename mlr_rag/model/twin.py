"""TwinTransformer: queries and documents each have a Transformer of their own, as in the paper's experiments.

Xie and Lukasiewicz (arXiv 2509.23861) train two encoders that start from the same language model. The name and place of
the class are part of the format of saved models.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from sentence_transformers.base.modules.transformer import Transformer

QUERY_FOLDER = "query"  # inside the documents' folder, which stays that of a stock Transformer


class TwinTransformer(Transformer):
    """A Transformer for documents that holds another one, which queries go through.

    All that it is asked (tokens, lengths, configuration, layers) the documents' Transformer answers, whose weights it
    shares; the two differ in their weights alone.

    Args:
        documents: The documents' Transformer, which is shared, not copied.
        queries: The queries' own; by default a copy of the documents', so that nothing changes until it is trained.
    """

    forward_kwargs: set[str] = {"task"}  # noqa: RUF012  (as the base class declares it)

    def __init__(self, documents: Transformer, queries: Transformer | None = None) -> None:
        self.__dict__.update(documents.__dict__, _modules=dict(documents._modules))
        self.query = copy.deepcopy(documents) if queries is None else queries
        self.query.processor = self.processor  # it is never asked for tokens

    def forward(self, features: dict[str, Any], task: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Token vectors of queries by their own Transformer, of everything else by the documents'."""
        if (task or features.get("task")) == "query":
            # Past the hooks: a copy may hold those that capture layers, which queries have no use for.
            tokens: dict[str, Any] = self.query.forward(features, **kwargs)
            return tokens
        return super().forward(features, **kwargs)

    def document_side(self) -> Transformer:
        """The documents' Transformer as a stock module, sharing the weights."""
        stock: Transformer = Transformer.__new__(Transformer)
        own = {name: module for name, module in self._modules.items() if name != "query"}
        stock.__dict__.update(self.__dict__, _modules=own)
        return stock

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the documents' Transformer, and the queries' in a folder of its own inside."""
        self.document_side().save(output_path, safe_serialization=True)
        self.query.save(str(Path(output_path) / QUERY_FOLDER), safe_serialization=True)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> TwinTransformer:  # type: ignore[override]
        """Read what `save` wrote, from a local folder."""
        documents, queries = (
            Transformer.load(model_name_or_path, subfolder=inside, **kwargs)
            for inside in (subfolder, (Path(subfolder) / QUERY_FOLDER).as_posix())
        )
        return cls(documents, queries)
