"""A model as stock sentence-transformers modules, which load without mlr_rag."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, WeightedLayerPooling
from torch import nn

from mlr_rag.errors import UnsupportedModelError
from mlr_rag.model.capture import find_final_norm
from mlr_rag.model.loading import load_modules
from mlr_rag.model.pooling import MultiLayerPooling
from mlr_rag.model.query_adapter import QueryAdapter
from mlr_rag.model.sides import document_side, query_side

_README = """\
# A multi-layer representation model, as stock sentence-transformers modules

    model = SentenceTransformer("this folder")
    model.encode_query(["..."]); model.encode_document(["..."])

Layer weights of documents: {weights}. Queries use the last layer only{queries}, so always call `encode_query` for
queries: plain `encode` gives a document's vector. {pools}
"""
_NO_POOLS = "Do not use worker pools: with hidden states on, they lose the layers without a word."


def export_portable(model: Any, path: str | Path) -> None:
    """Write the model so that plain `SentenceTransformer(path)` gives its vectors.

    Where queries and documents go the same way, and the pooling leaves the last layer alone, that is Transformer and
    Pooling. Else it is a Router: `mean` and `scalar_mix` weight hidden states for documents, a separate query encoder
    is a Transformer on the queries' route, and a linear adapter a Dense.

    Raises:
        UnsupportedModelError: stock modules cannot express the pooling, or the adapter.
    """
    pooling: MultiLayerPooling = model[1]
    weights = pooling.weights()
    if weights is None:
        raise UnsupportedModelError(
            "stock modules give one vector a document",
            found=f'pooling="{pooling.pooling}"',
            expected="last, mean, scalar_mix or self_contrastive",
            remedy="Keep the folder that save() writes.",
        )
    weights = weights.detach().float().cpu()
    only_last, own = bool((weights[:-1] == 0).all()), query_side(model)
    adapters = [_dense(module) for module in own if isinstance(module, QueryAdapter)]
    if not only_last:
        _check_expressible(model, weights)
    transformer, _, *tail = cast("list[Any]", document_side(model))
    if only_last and not own:
        modules: list[nn.Module] = [transformer, _tokens(pooling), *tail]
    else:
        *middle, unit = tail
        if not only_last:
            transformer = _copy_with_hidden_states(transformer, model.device)
        query_transformer: Any = next((module for module in own if isinstance(module, Transformer)), transformer)
        mix = [] if only_last else [_mix(pooling, weights)]
        router = Router.for_query_document(
            query_modules=[query_transformer, _tokens(pooling), *middle, *adapters],
            document_modules=[transformer, *mix, _tokens(pooling), *middle],
        )
        modules = [router, unit]
    stock = SentenceTransformer(modules=modules, prompts=model.prompts, similarity_fn_name=model.similarity_fn_name)
    stock.truncate_dim = model.truncate_dim
    stock.save(str(path), create_model_card=False)
    shown = ", ".join(f"{layer}: {weight:.4g}" for layer, weight in zip(pooling.layers, weights.tolist(), strict=True))
    queries = ", of modules of their own" if own else ""
    text = _README.format(weights=shown, queries=queries, pools="" if only_last else _NO_POOLS)
    (Path(path) / "README.md").write_text(text, "utf-8")


def _check_expressible(model: Any, weights: torch.Tensor) -> None:
    if find_final_norm(model[0].model) is not None:
        raise UnsupportedModelError(
            "stock modules do not apply the final norm to inner layers, as this architecture needs",
            found=type(model[0].model).__name__,
            remedy='Keep the folder that save() writes, or export with pooling="last".',
        )
    if model[1].token_pooling == "max":  # noqa: S105  (no password)
        raise UnsupportedModelError(
            "stock modules mix layers before they pool tokens, and a maximum of a mix is not a mix of maxima",
            found='token_pooling="max"',
            remedy="Keep the folder that save() writes.",
        )
    tail = [type(module).__name__ for module in document_side(model)[2:] if not isinstance(module, Normalize)]
    if tail and abs(float(weights.sum()) - 1) > 1e-6:
        raise UnsupportedModelError(
            "stock modules divide by the sum of the layer weights, which the modules after them would see",
            found=f"sum {float(weights.sum()):.4g} before {', '.join(tail)}",
            expected="sum 1",
            remedy="Keep the folder that save() writes.",
        )
    if float(weights.sum()) < 1e-3:
        raise UnsupportedModelError(
            "stock modules divide by the sum of the layer weights",
            found=f"sum {float(weights.sum()):.2g}",
            expected="a positive sum",
            remedy="Keep the folder that save() writes.",
        )


def _tokens(pooling: MultiLayerPooling) -> Any:
    return Pooling(pooling.dimension, pooling.token_pooling, include_prompt=pooling.include_prompt)


def _mix(pooling: MultiLayerPooling, weights: torch.Tensor) -> Any:
    mix = WeightedLayerPooling(pooling.dimension, num_hidden_layers=pooling.num_layers, layer_start=pooling.layers[0])
    every_layer = torch.zeros(pooling.num_layers + 1 - pooling.layers[0])
    every_layer[[layer - pooling.layers[0] for layer in pooling.layers]] = weights
    mix.layer_weights = nn.Parameter(every_layer)
    return mix


def _dense(adapter: QueryAdapter) -> Any:
    """I + B A, in one matrix."""
    if adapter.form != "linear":
        raise UnsupportedModelError(
            "stock modules cannot express the query adapter",
            found=f'form="{adapter.form}"',
            expected='form="linear"',
            remedy="Keep the folder that save() writes.",
        )
    size = adapter.dimension
    moved = adapter.adapt(torch.eye(size).to(adapter.read)).detach()  # row i is where the i-th unit vector goes
    return Dense(size, size, bias=False, activation_function=nn.Identity(), init_weight=moved.T.contiguous())


def _copy_with_hidden_states(module: Any, device: torch.device) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        module.save(folder)
        transformer: Any = load_modules(Path(folder))[0]
    transformer.config.output_hidden_states = True
    return transformer.to(device)
