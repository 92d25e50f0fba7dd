"""MultiLayerPooling: from the hidden states of several layers to one vector, or one a layer.

Follows Xie and Lukasiewicz, "Investigating Multi-layer Representations for Dense Passage Retrieval" (arXiv
2509.23861): a query is its last layer; a document is the pooled vectors h_l of a layer set S that holds the last
layer L. The name and place of the class are part of the format of saved models.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any, Literal, get_args

import torch
from sentence_transformers.base.modules.module import Module
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

from mlr_rag.errors import InvalidInputError, UnsupportedModelError
from mlr_rag.model.capture import LayerCapture, find_final_norm

PoolingMode = Literal["last", "mean", "scalar_mix", "self_contrastive", "multi_vector"]
Start = Literal["identity", "paper"]
_LAST_AT_INFERENCE = ("last", "self_contrastive")


class MultiLayerPooling(Module):
    """Pools tokens in each chosen layer, then the layers.

    With v_l the token-pooled vector of layer l, `(B, D)`, and v_L the last one, a document becomes

        last, self_contrastive   v_L
        mean                     v_L + g (mean_l v_l - v_L)      g learned, 0 at the start ("paper": g = 1, fixed)
        scalar_mix               sum_l w_l v_l                   w learned, one-hot at L at the start
                                                                 ("paper": softmax(w), w = 0 at the start)
        multi_vector             every v_l; its score is the largest over l

    and a query is always v_L. In pre-norm architectures the model's final norm is applied to every layer.

    Args:
        dimension: D, the width of the hidden states.
        num_layers: L, the number of layers.
        layers: S, 1-based and ascending, with L at the end.
        pooling: How layers become a vector.
        token_pooling: How tokens become a vector: any mode of sentence-transformers' Pooling.
        include_prompt: Whether prompt tokens are pooled too.
        start: "identity" gives the base model's own vectors until trained; "paper" the paper's initial weights.
    """

    config_keys: list[str] = [  # noqa: RUF012  (as the base class declares it)
        "dimension",
        "num_layers",
        "layers",
        "pooling",
        "token_pooling",
        "include_prompt",
        "start",
    ]
    forward_kwargs: set[str] = {"task", "return_layers"}  # noqa: RUF012

    def __init__(
        self,
        dimension: int,
        num_layers: int,
        layers: tuple[int, ...] | list[int],
        pooling: PoolingMode = "scalar_mix",
        token_pooling: str = "mean",  # noqa: S107  (no password)
        include_prompt: bool = True,
        start: Start = "identity",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        _check_choice("pooling", pooling, get_args(PoolingMode))
        _check_choice("start", start, get_args(Start))
        _check_choice("token_pooling", token_pooling, Pooling.POOLING_MODES)
        self.dimension, self.num_layers, self.layers = dimension, num_layers, tuple(layers)
        self.pooling, self.start = pooling, start
        self.token_pooling, self.include_prompt = token_pooling, include_prompt
        self.pool_tokens = Pooling(dimension, token_pooling, include_prompt=include_prompt)
        self.capture = LayerCapture(self.layers[:-1])
        self._final_norm: tuple[nn.Module, ...] = ()  # in a tuple, so that its weights stay the backbone's alone
        if pooling == "scalar_mix":
            initial = torch.zeros(len(self.layers))
            if start == "identity":
                initial[-1] = 1.0
            self.layer_weights = nn.Parameter(initial)
        elif pooling == "mean" and start == "identity":
            self.gate = nn.Parameter(torch.zeros(1))

    def on_model_ready(self, model: Any) -> None:
        """Hook the layers of the model that this module has become part of."""
        self.capture.attach(model[0])
        norm = find_final_norm(model[0].model)
        self._final_norm = () if norm is None else (norm,)

    def forward(
        self, features: dict[str, Any], task: str | None = None, return_layers: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Add `sentence_embedding` `(B, D)`, and `layer_embeddings` `(B, m, D)` where layers are in use.

        Layers are in use for documents that are pooled from several, for documents in training, and on request.
        """
        captured = self.capture.take()
        last: Tensor = self.pool_tokens(dict(features))["sentence_embedding"]
        features["sentence_embedding"] = last
        is_query = (task or features.get("task")) == "query"
        pooled = not is_query and self.pooling not in _LAST_AT_INFERENCE
        if return_layers or pooled or (self.training and not is_query):
            vectors = [self._pool_layer(features, captured, layer) for layer in self.layers[:-1]]
            layers = features["layer_embeddings"] = torch.stack([*vectors, last], dim=1)
            if pooled:
                features["sentence_embedding"] = self._pool_layers(layers)
        return features

    def weights(self) -> Tensor | None:
        """What each layer counts in a document's vector, `(m,)`, or None where there is not one vector."""
        m = len(self.layers)
        last = torch.eye(m)[-1]
        match self.pooling:
            case "multi_vector":
                return None
            case "scalar_mix":
                return self.layer_weights.softmax(0) if self.start == "paper" else self.layer_weights
            case "mean":
                gate = self.gate if self.start == "identity" else torch.ones(1)
                return last.to(gate) + gate * (1 / m - last.to(gate))
        return last

    def _pool_layers(self, layers: Tensor) -> Tensor:
        weights = self.weights()
        if weights is None:
            return layers[:, -1]  # MLRModel puts the layers themselves in its place
        return torch.einsum("m,bmd->bd", weights.to(layers), layers)

    def _pool_layer(self, features: dict[str, Any], captured: dict[int, Tensor], layer: int) -> Tensor:
        hidden = captured.get(layer)
        tokens = features["token_embeddings"]
        lost_gradient = (
            hidden is not None and torch.is_grad_enabled() and tokens.requires_grad and not hidden.requires_grad
        )
        if hidden is None or hidden.shape != tokens.shape or lost_gradient:
            raise UnsupportedModelError(
                f"layer {layer} was not captured in this forward pass",
                found="no gradient" if lost_gradient else None if hidden is None else tuple(hidden.shape),
                expected=tuple(tokens.shape),
                remedy="Build the model with MLRModel.from_pretrained or MLRModel.load; with gradient checkpointing, "
                "use use_reentrant=False.",
            )
        for norm in self._final_norm:
            hidden = norm(hidden)
        of_layer = {key: value for key, value in features.items() if key != "cls_token_embeddings"}
        vector: Tensor = self.pool_tokens(of_layer | {"token_embeddings": hidden})["sentence_embedding"]
        return vector

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return self.dimension

    def get_config_dict(self) -> dict[str, Any]:
        """What is saved as config.json."""
        return super().get_config_dict() | {"layers": list(self.layers)}

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the configuration, and the weights where there are any, as safetensors."""
        self.save_config(output_path)
        if any(True for _ in self.parameters()):
            self.save_torch_weights(output_path, safe_serialization=True)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> MultiLayerPooling:  # type: ignore[override]
        """Read what `save` wrote, from a local folder."""
        module = cls(**cls.load_config(model_name_or_path, subfolder=subfolder, local_files_only=True))
        if any(True for _ in module.parameters()):
            cls.load_torch_weights(model_name_or_path, subfolder=subfolder, local_files_only=True, model=module)
        return module


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidInputError(f"an unknown {name}", found=value, expected=" | ".join(choices))


def resolve_layers(layers: Any, num_layers: int) -> tuple[int, ...]:
    """A layer set as ascending 1-based numbers that end with the last layer.

    Negative numbers count from the end: -1 is the last layer, as `num_layers` is.

    Raises:
        InvalidInputError: no such layer.
    """
    resolved = {num_layers}
    for layer in layers if isinstance(layers, Iterable) else [layers]:
        if isinstance(layer, bool) or not isinstance(layer, Integral) or not 1 <= abs(int(layer)) <= num_layers:
            raise InvalidInputError(
                "no such layer", found=layer, expected=f"1 to {num_layers}, or -{num_layers} to -1 from the end"
            )
        resolved.add(int(layer) if int(layer) > 0 else num_layers + 1 + int(layer))
    return tuple(sorted(resolved))
