"""The options of a search, as they come in keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlr_rag.errors import InvalidQueryError
from mlr_rag_langchain.documents import ids_of

FIELDS = ("k", "filter", "min_score", "diversity", "candidates", "mode")
OPTIONS = (*FIELDS, "ids")


def searchable(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, refused where a search has none of that name: LangChain itself would drop them in silence."""
    for name in options:
        if name not in OPTIONS and name != "verbose":  # which LangChain has read already, and passes on
            remedy = "min_score is a cosine; score_threshold goes with search_type='similarity_score_threshold'."
            raise InvalidQueryError(
                "a search has no such option",
                found=name,
                expected=", ".join(OPTIONS),
                remedy=remedy if name == "score_threshold" else "",
            )
    kept = {name: value for name, value in options.items() if name != "verbose"}
    return kept | {"ids": ids_of(kept["ids"])} if kept.get("ids") is not None else kept
