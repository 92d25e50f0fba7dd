"""The settings of every chromadb client that we make."""

from __future__ import annotations

from typing import Any

from chromadb.config import Settings

from mlr_rag_chroma.environment import unusable

_HERE = "chromadb.api.rust.RustBindingsAPI"


def settings(**given: Any) -> Settings:
    """Settings of an engine in this process, unless another implementation is given; without telemetry.

    chromadb would take the implementation from ./.env or the environment too, and send a folder's documents to the
    server that is named there. What is given here wins over the environment, and ./.env is not read.

    Raises:
        InvalidInputError: the environment has what chromadb cannot use.
    """
    try:
        return Settings(**{"_env_file": None, "anonymized_telemetry": False, "chroma_api_impl": _HERE, **given})
    except ValueError as problem:
        raise unusable(problem) from None
