"""ListLoss: a model and an objective, with activations in memory that do not grow with the batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from sentence_transformers.base.losses.gradcache import (
    CachedLossMixin,
    RandContext,
    _backward_hook,
    _create_minibatch,
    _minibatch_ranges,
)
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from mlr_rag.errors import InvalidInputError
from mlr_rag.model.encoding import BATCH_TOKENS
from mlr_rag.training.gathering import gather_passages
from mlr_rag.training.layer_watch import LayerWatch
from mlr_rag.training.lists import ListBatch
from mlr_rag.training.objectives import Objective, default_objective

Features = dict[str, Any]
_GPU_TOKENS = 8192
_HELD = 2**32  # bytes of activations that are held without the cache, about
_ACTIVATION = 90  # bytes a token, layer and dimension: measured with MiniLM in float32
_SCORES = 2**20  # that are held at once, where they can be cut


class ListLoss(CachedLossMixin, nn.Module):
    """The loss of a batch of lists from `ListCollator`, for sentence-transformers' trainer or a loop of your own.

    Each distinct passage is encoded once. The objective sees `scores (B, P, m)`, the product of each query's vector
    with every passage's vector of each layer, the last layer first; m = 1 where the model's pooling makes one vector
    of the layers, and where the model is in evaluation mode and gives one.

    With the gradient cache (GradCache, arXiv 2101.06983) memory holds the activations of one mini-batch at a time,
    whatever the batch, and gradients are the same; every text is then read twice, once without and once with a
    gradient. Scores are cut as well, by lists, where the objective is a mean over lists (`by_row`); with MarginMSE,
    Wasserstein and MannWhitney they grow, 4 B P m bytes a copy. Without the cache the mini-batches remain, which saves
    padding and is kinder to a CPU's caches, but all their activations are held.

    A softmax leaves most passages with next to no gradient, and the cache knows it before the second reading.
    `skip_gradient=e` then reads again only the passages with the largest gradients, so that those left out have
    together at most the share e of the norm: ||g - g'|| <= e ||g||, g being the gradient of the passages' vectors.

    Args:
        model: An MLRModel, or any SentenceTransformer.
        objective: What is to become small; `default_objective()` by default.
        mini_batch_num_tokens: The most tokens, padding left out, in a mini-batch; by default 3,072 on a CPU, whose
            caches that fits, and 8,192 elsewhere.
        similarity: "cosine", as stores compute it, or "dot", of the vectors before the model's last `Normalize`, as
            in arXiv 2509.23861: a matter of research, since stores hold unit vectors.
        gradient_cache: Encode twice and hold one mini-batch, or once and hold them all; None for the first where a
            batch would hold more than about 4 GiB.
        skip_gradient: Which share of the passages' gradient may be left out, from 0 to less than 1.
        dropout: Use the model's dropout. arXiv 2502.19712 trains without it, and on a CPU it costs a third of a step.
        gather: Let the passages of other processes (torch.distributed) be in-batch candidates too.

    Raises:
        InvalidInputError: an option is none of these, or the objective is of layers that the model does not give.
    """

    def __init__(
        self,
        model: Any,
        objective: nn.Module | None = None,
        mini_batch_num_tokens: int | None = None,
        similarity: Literal["cosine", "dot"] = "cosine",
        gradient_cache: bool | None = None,
        skip_gradient: float = 0.0,
        dropout: bool = False,
        gather: bool = False,
    ) -> None:
        super().__init__()
        if similarity not in ("cosine", "dot"):
            raise InvalidInputError("an unknown similarity", found=similarity, expected="cosine | dot")
        tokens = mini_batch_num_tokens
        if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
            raise InvalidInputError(
                "mini_batch_num_tokens is not a number of tokens", found=tokens, expected="1 or more"
            )
        if not 0 <= skip_gradient < 1:
            raise InvalidInputError("skip_gradient is not a share", found=skip_gradient, expected="0 <= share < 1")
        if skip_gradient and (dropout or gradient_cache is False):
            raise InvalidInputError(
                "skip_gradient reads some passages again, just as they were read before",
                found=f"dropout={dropout}, gradient_cache={gradient_cache}",
                expected="dropout=False, gradient_cache=True",
            )
        self.model = model
        self.objective = default_objective() if objective is None else objective
        _check_objective(self.objective, model)
        self.mini_batch_num_tokens = tokens or (BATCH_TOKENS if model.device.type == "cpu" else _GPU_TOKENS)
        self.mini_batch_size = 1  # the mixin's other way to cut a batch, which is not in use
        self.similarity = similarity
        self.uses_gradient_cache = gradient_cache is not False  # what sentence-transformers asks
        self._cache = True if skip_gradient else gradient_cache
        self.skip_gradient, self.dropout, self.gather = skip_gradient, dropout, gather
        self.layers: tuple[int, ...] = tuple(getattr(model, "layers", ())[::-1])
        self._pooling = getattr(model, "pooling", "last")
        self._watch = LayerWatch(self.layers)

    def forward(self, sentence_features: Iterable[Features], labels: dict[str, Any]) -> dict[str, Tensor]:
        """The loss as its named parts, whose sum it is; the trainer adds them up and logs each.

        Only the sum has the gradient, which is why the parts should not be taken alone.
        """
        features = list(sentence_features)
        if self._too_large(features) if self._cache is None else self._cache:
            skips = self.skip_gradient > 0 and torch.is_grad_enabled()
            cached: Any = self._forward_skipping if skips else self.forward_cached
            loss = cached(features, labels)
            if torch.is_grad_enabled():
                loss.register_hook(partial(_add_gradients, self._objective_gradients))
        else:
            loss = self.calculate_loss([self._embed(each) for each in features], labels)
        first, *others = self._parts.items()
        rest = {name: value.to(loss) for name, value in others}
        return {first[0]: loss - sum(rest.values(), torch.zeros_like(loss)), **rest}

    def _too_large(self, features: list[Features]) -> bool:
        """Whether the activations of all of it are too much to hold at once, by the size of the model's layers."""
        config = getattr(getattr(self.model, "module", self.model)[0].model, "config", None)
        sizes = [getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size")]
        tokens = sum(int(each["attention_mask"].sum()) for each in features if "attention_mask" in each)
        if not tokens or not all(isinstance(size, int) for size in sizes):
            return True
        return tokens * math.prod(sizes) * _ACTIVATION > _HELD  # type: ignore[arg-type]

    def calculate_loss(  # type: ignore[override]
        self, reps: list[list[Tensor]], labels: dict[str, Any], *, with_backward: bool = False
    ) -> Tensor:
        """The loss from the mini-batches' vectors; `with_backward` also leaves each one's gradient in it."""
        labels = dict(labels)
        keys = labels.pop("keys")
        queries, passages = torch.cat(reps[0])[:, 0], torch.cat(reps[1])
        if self.gather:
            passages = gather_passages(passages, keys)
        batch = ListBatch(**labels, best_layer=self._pooling == "multi_vector")
        size = max(1, _SCORES // (passages.shape[0] * passages.shape[1]))
        if with_backward and len(queries) > size and not self.gather and getattr(self.objective, "by_row", False):
            loss = self._backward_by_rows(reps, queries, passages, batch, size)
        else:
            parts = self._parts_of(queries, passages, batch)
            self._parts = {name: value.detach() for name, value in parts.items()}
            loss = torch.stack(list(parts.values())).sum()
            if with_backward:
                leaves = [vectors for chunks in reps for vectors in chunks]
                found = torch.autograd.grad(loss, [*leaves, *self._learned], allow_unused=True)
                for vectors, gradient in zip(leaves, found, strict=False):
                    vectors.grad = gradient
                # The objective's own parameters must wait for backward(), which scales the gradient.
                self._objective_gradients = list(zip(self._learned, found[len(leaves) :], strict=True))
        if loss.requires_grad and self._wins is not None:
            self._watch_layers(self._wins)
        return loss.detach() if with_backward else loss

    def _backward_by_rows(
        self, reps: list[list[Tensor]], queries: Tensor, passages: Tensor, batch: ListBatch, size: int
    ) -> Tensor:
        """The loss, from the scores of `size` queries at a time; leaves the gradients in the vectors."""
        queries, passages = (vectors.detach().requires_grad_() for vectors in (queries, passages))
        totals = [torch.zeros_like(each) for each in (queries, passages, *self._learned)]
        self._parts, count = {}, len(queries)
        for start in range(0, count, size):
            rows = range(start, min(start + size, count))
            found = self._parts_of(queries[rows.start : rows.stop], passages, batch.rows(rows))
            parts = {name: value * (len(rows) / count) for name, value in found.items()}
            loss = torch.stack(list(parts.values())).sum()
            gradients = torch.autograd.grad(loss, [queries, passages, *self._learned], allow_unused=True)
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:
                    total += gradient
            for name, value in parts.items():
                self._parts[name] = self._parts.get(name, 0) + value.detach()
        for chunks, total in zip(reps, (totals[0][:, None], totals[1]), strict=True):
            for vectors, gradient in zip(chunks, torch.split(total, [len(vectors) for vectors in chunks]), strict=True):
                vectors.grad = gradient
        self._objective_gradients = list(zip(self._learned, totals[2:], strict=True))
        return torch.stack(list(self._parts.values())).sum().requires_grad_()

    def _parts_of(self, queries: Tensor, passages: Tensor, batch: ListBatch) -> dict[str, Tensor]:
        with torch.autocast(queries.device.type, enabled=False):
            scores = torch.einsum("bd,pmd->bpm", *_at_least_float32(queries, passages))
            return _parts(self.objective, scores, batch)

    @property
    def _learned(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.objective.parameters() if parameter.requires_grad]

    def embed_minibatch(
        self,
        sentence_feature: Features,
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[Tensor, RandContext | None]:
        """The vectors of some rows: `(rows, 1, D)` of queries, `(rows, m, D)` of passages, the last layer first."""
        features = _create_minibatch(sentence_feature, begin, end)
        with random_state or nullcontext(), torch.set_grad_enabled(with_grad):
            state = RandContext(*features.values()) if copy_random_state else None
            return self._vectors(features), state

    def layer_wins(self) -> dict[int, float]:
        """How often each layer was a document's best one in training so far: layer → share; {} with one vector."""
        wins = self._wins
        return {} if wins is None else dict(zip(self.layers, (wins / wins.sum().clamp(min=1)).tolist(), strict=True))

    @property
    def _wins(self) -> Tensor | None:
        return self.objective.wins if isinstance(self.objective, Objective) else None

    def _watch_layers(self, wins: Tensor) -> None:
        remedy = getattr(self.objective, "remedy", "")
        if remedy:
            unit = "" if self.similarity == "cosine" else "Use unit vectors (similarity='cosine'). "
            self._watch.step(wins, unit + remedy)

    def _forward_skipping(self, features: list[Features], labels: dict[str, Any]) -> Any:
        """`forward_cached`, with a second pass over the passages that matter alone."""
        with torch.no_grad():
            reps = [[vectors.requires_grad_() for vectors in self._embed(each)] for each in features]
        loss: Any = self.calculate_loss(reps, labels, with_backward=True).requires_grad_()
        queries, passages = (torch.cat([_gradient(vectors) for vectors in chunks]) for chunks in reps)
        rows = _largest(passages, self.skip_gradient)
        again = [features[0], {key: value[rows] if _is_table(value) else value for key, value in features[1].items()}]
        ranges: list[Any] = [self._ranges(each) for each in again]
        cache = [
            [gradients[begin:end] for begin, end in of_column]
            for gradients, of_column in zip((queries, passages[rows]), ranges, strict=True)
        ]
        states: list[Any] = [None, None]  # nothing is random without dropout
        loss.register_hook(
            partial(
                _backward_hook,
                sentence_features=again,
                loss_obj=self,
                cache=cache,
                random_states=states,
                ranges=ranges,
            )
        )
        return loss

    def _ranges(self, features: Features) -> list[tuple[int, int]]:
        return _minibatch_ranges(features, self.mini_batch_size, self.mini_batch_num_tokens)

    def _embed(self, features: Features) -> list[Tensor]:
        iterator = self.embed_minibatch_iter(features, torch.is_grad_enabled(), False, ranges=self._ranges(features))
        return [vectors for vectors, _ in iterator]

    def _vectors(self, features: Features) -> Tensor:
        with (
            nullcontext() if self.similarity == "cosine" else _no_normalize(self.model),
            nullcontext() if self.dropout else _no_dropout(self.model),
        ):
            out = self.model(features)
        layers: Tensor | None = out.get("layer_embeddings")
        if layers is None or self._pooling not in ("self_contrastive", "multi_vector") or features["task"] == "query":
            vectors: Tensor = out["sentence_embedding"][:, None]
            return vectors
        return layers.flip(1)


def _check_objective(objective: Any, model: Any) -> None:
    """Make sure that it is an objective, and that the model gives the layers that it needs."""
    if not isinstance(objective, nn.Module) or hasattr(objective, "model"):
        is_class = isinstance(objective, type)
        raise InvalidInputError(
            "not an objective",
            found=f"the class {objective.__name__}" if is_class else type(objective).__name__,
            expected="a module (scores, batch) -> loss, such as SelfContrastive()",
            remedy="A loss of sentence-transformers is for its own trainer, as it reads texts and not scores.",
        )
    poolings = objective.poolings if isinstance(objective, Objective) else None
    if poolings is None:
        return
    found = getattr(model, "pooling", None)
    if found not in poolings or len(model.layers) < 2:
        wanted = poolings[0]
        raise InvalidInputError(
            f"the model does not give the layers that {type(objective).__name__} is about",
            found=f"pooling={found!r}, layers={getattr(model, 'layers', None)}",
            expected=f"pooling={wanted!r}, two layers or more",
            remedy=f"Use MLRModel.from_pretrained(..., layers=(-2, -1), pooling={wanted!r}).",
        )


def _parts(objective: nn.Module, scores: Tensor, batch: ListBatch) -> dict[str, Tensor]:
    """The named parts of one of our objectives; any other module's whole value."""
    if isinstance(objective, Objective):
        return objective.parts(scores, batch)
    return {"objective": objective(scores, batch)}


@contextmanager
def _no_dropout(model: Any) -> Iterator[None]:
    """The backbone in evaluation mode, which is dropout's switch in every architecture; the pooling stays as it is."""
    backbone = getattr(model, "module", model)[0]
    if any(getattr(module, "gradient_checkpointing", False) for module in backbone.modules()):
        raise InvalidInputError(
            "gradient checkpointing is for training mode only, which has dropout",
            remedy="Use dropout=True, or leave checkpointing off: the gradient cache bounds the memory.",
        )
    training = backbone.training
    backbone.eval()
    try:
        yield
    finally:
        backbone.train(training)


def _largest(gradients: Tensor, skip: float) -> Tensor:
    """The rows, in order, whose gradients are all but the share `skip` of the norm."""
    squares = gradients.flatten(1).double().square().sum(1)
    ordered, rows = squares.sort(descending=True)
    left_out = ordered.flip(0).cumsum(0).flip(0)  # by stopping before this row
    return rows[left_out > skip**2 * squares.sum()].sort().values


def _gradient(vectors: Tensor) -> Tensor:
    return torch.zeros_like(vectors) if vectors.grad is None else vectors.grad


def _is_table(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0


@contextmanager
def _no_normalize(model: Any) -> Iterator[None]:
    """The model itself, meanwhile without its last Normalize.

    A copy would not do: the forward that mixed precision puts into a model stays bound to that model.

    Raises:
        InvalidInputError: it has none at its end, or is wrapped for several processes.
    """
    name, last = list(model._modules.items())[-1]
    if not isinstance(last, Normalize):
        raise InvalidInputError(
            'similarity="dot" needs the model itself, with Normalize at its end', found=type(last).__name__
        )
    del model._modules[name]
    try:
        yield
    finally:
        model._modules[name] = last


def _at_least_float32(*tensors: Tensor) -> list[Tensor]:
    return [each.to(torch.promote_types(each.dtype, torch.float32)) for each in tensors]


def _add_gradients(gradients: Sequence[tuple[nn.Parameter, Tensor | None]], scale: Tensor) -> None:
    for parameter, gradient in gradients:
        if gradient is not None:
            scaled = gradient * scale
            parameter.grad = scaled if parameter.grad is None else parameter.grad + scaled
