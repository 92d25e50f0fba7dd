"""What the query words of a cross-encoder look at in a document, read from its last layer.

The teacher's side of word-level distillation: our own reading of the abstract of MD2PR (arXiv 2312.16821); VIRT (arXiv
2112.04195) and ERNIE-Search (arXiv 2205.09153) are its neighbors.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mlr_rag.errors import UnsupportedModelError
from mlr_rag.model.batches import pad, token_batches
from mlr_rag.model.capture import find_layers

Pair = tuple[Sequence[int], Sequence[int]]
_CPU_TOKENS, _GPU_TOKENS = 3072, 8192  # in a padded batch, whose maps are tokens * length * heads numbers
_SAMPLES = (
    "The Café at No. 9 opened at 09:30, didn't it?",
    "naïve ÀÉÎ — 東京 1,234.5 % <br> don't_split  THIS-word",
    "def f(x): return {'a': x[0] ** 2}\n\tunbelievably antidisestablishmentarian",
)


class CrossAttention:
    """A cross-encoder's attention from query words to document words: last layer, mean over heads, rows summing to 1.

    It reads pairs of token ids, so that teacher and student see the very same words (see `check_shared_tokenizer`);
    special tokens are left out of the maps. Maps are only given by the "eager" attention of transformers, which is
    switched on for this model while it reads, and back afterwards. No gradients; one mini-batch at a time; the maps
    used last are kept in memory, as float16, since a training run sees each pair in every epoch.

    Args:
        cross_encoder: A sentence-transformers CrossEncoder; it is put into evaluation mode.
        memory: Bytes of maps that are kept, at most.

    Attributes:
        asked: Pairs that the cross-encoder has read.

    Raises:
        UnsupportedModelError: the model gives no such attention (a decoder reads the query before the document).
    """

    def __init__(self, cross_encoder: Any, memory: int = 2**28) -> None:
        self.cross_encoder, self.memory, self.asked = cross_encoder, memory, 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._bytes = 0
        tokenizer = cross_encoder.tokenizer
        self._limit = int(cross_encoder.max_seq_length or tokenizer.model_max_length)
        self._template = _template(tokenizer)
        self._last_layer = find_layers(cross_encoder.model.base_model)[1][-1]
        word = tokenizer("word", add_special_tokens=False)["input_ids"]
        if not self([(word, word)])[0].any():
            raise UnsupportedModelError(
                "its query words do not look at the document",
                found=type(cross_encoder.model).__name__,
                expected="a cross-encoder that reads in both directions",
            )
        self.asked = 0

    def __call__(self, pairs: Sequence[Pair]) -> list[Tensor]:
        """The map `(Q, K)` float16 on the CPU of each (query, document), given as token ids without special ones.

        A pair too long for the model loses the end of the document, and of the query what is beyond half of the room:
        the map then has fewer rows or columns than there are ids. A word that looks at no word of the document at all
        has a row of zeros.
        """
        keys = [array("q", [len(query), *query, *document]).tobytes() for query, document in pairs]
        known = {key: self._kept[key] for key in keys if key in self._kept}
        unknown = {key: self._cut(pair) for key, pair in zip(keys, pairs, strict=True) if key not in known}
        read = dict(zip(unknown, self._read(list(unknown.values())), strict=True))
        for key in dict.fromkeys(keys):
            self._keep(key, known.get(key, read.get(key)))
        maps = read | known
        return [maps[key] for key in keys]

    def _keep(self, key: bytes, found: Any) -> None:
        """Put a map at the end of the queue, whose beginning makes room."""
        if self._kept.pop(key, None) is None:
            self._bytes += found.nbytes + len(key)
        self._kept[key] = found
        while self._bytes > self.memory:
            old, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes + len(old)

    def _cut(self, pair: Pair) -> Pair:
        room = self._limit - sum(len(ids) for ids, _ in self._template[::2])
        query = pair[0][: room // 2]
        return query, pair[1][: room - len(query)]

    @torch.no_grad()
    def _read(self, pairs: list[Pair]) -> list[Tensor]:
        model = self.cross_encoder.eval().model
        device = model.device
        (start, _), (_, query_type), (middle, _), (_, document_type), (end, _) = self._template
        types = [kinds for _, kinds in self._template]
        rows = [[*start, *query, *middle, *document, *end] for query, document in pairs]
        lengths = [len(row) for row in rows]
        maps: list[Tensor] = [torch.empty(0)] * len(pairs)
        with _eager(model), torch.autocast(device.type, enabled=False):
            for batch in token_batches(lengths, _CPU_TOKENS if device.type == "cpu" else _GPU_TOKENS):
                features = {
                    "input_ids": pad([rows[i] for i in batch], self.cross_encoder.tokenizer.pad_token_id or 0, "right"),
                    "attention_mask": pad([[1] * lengths[i] for i in batch], 0, "right"),
                }
                if query_type:
                    kinds = [
                        [*types[0], *query_type * len(query), *types[2], *document_type * len(document), *types[4]]
                        for query, document in (pairs[i] for i in batch)
                    ]
                    features["token_type_ids"] = pad(kinds, 0, "right")
                attention = self._attention(model, {name: value.to(device) for name, value in features.items()})
                for i, whole in zip(batch, attention, strict=True):
                    query, document = pairs[i]
                    first, second = len(start), len(start) + len(query) + len(middle)
                    part = whole[first : first + len(query), second : second + len(document)]
                    mass = part.sum(1, keepdim=True)
                    maps[i] = (part / mass.where(mass > 0, 1.0)).half().cpu()
                self.asked += len(batch)
        return maps

    def _attention(self, model: Any, features: dict[str, Tensor]) -> Tensor:
        """The last layer's maps `(B, T, T)`, mean over heads; a hook holds them, and no other layer's."""
        found: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            for value in output if isinstance(output, tuple) else ():
                if isinstance(value, Tensor) and value.ndim == 4 and value.shape[-1] == value.shape[-2]:
                    found.append(value)

        hooks = [module.register_forward_hook(keep) for module in self._last_layer.modules()]
        try:
            model.base_model(**features)
        finally:
            for hook in hooks:
                hook.remove()
        if not found:
            raise UnsupportedModelError(
                f"the last layer of {type(model).__name__} gives no attention",
                expected='attention weights under attn_implementation="eager"',
                remedy="Use another cross-encoder, such as a BERT.",
            )
        return found[-1].float().mean(1)


def check_shared_tokenizer(student: Any, teacher: Any) -> None:
    """Make sure that two models cut texts into the same words: equal vocabularies, and samples cut alike.

    Args:
        student: Whatever has a `tokenizer`.
        teacher: The same.

    Raises:
        UnsupportedModelError: they do not.
    """
    ours, theirs = student.tokenizer, teacher.tokenizer
    here, there = ours.get_vocab(), theirs.get_vocab()
    remedy = "Word-level distillation needs one tokenizer: choose a cross-encoder of the student's family."
    if here != there:
        different = sum(there.get(token) != number for token, number in here.items())
        raise UnsupportedModelError(
            "student and teacher have different vocabularies",
            found=f"{len(there):,} tokens, {different:,} of the student's missing or numbered otherwise",
            expected=f"the student's {len(here):,}",
            remedy=remedy,
        )
    for sample in _SAMPLES:
        cut, expected = (each.tokenize(sample, add_special_tokens=False) for each in (theirs, ours))
        if cut != expected:
            raise UnsupportedModelError(
                f"student and teacher cut {sample!r} into different words", found=cut, expected=expected, remedy=remedy
            )


def _template(tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Ids and token types around and of a pair: start, query, middle, document, end; no types where it has none."""
    probe = tokenizer("a", "a")
    sides = probe.sequence_ids(0) if probe.is_fast else []
    if 0 not in sides or 1 not in sides or sides.index(0) > sides.index(1):
        raise UnsupportedModelError(
            "cannot tell query and document in what the cross-encoder reads",
            found=type(tokenizer).__name__,
            expected="a fast tokenizer that puts the query first",
        )
    query, document = sides.index(0), sides.index(1)
    after_query, after_document = query + sides.count(0), document + sides.count(1)
    ids, types = probe["input_ids"], probe.get("token_type_ids", [])
    edges = [(0, query), (query, query + 1), (after_query, document), (document, document + 1), (after_document, None)]
    return [(ids[start:end], types[start:end]) for start, end in edges]


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
