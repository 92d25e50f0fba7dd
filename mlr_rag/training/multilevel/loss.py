"""Multi-level distillation: a cross-encoder's scores of a list, and what its query words look at in each passage.

Our own reading of the abstract of MD2PR (Li, Hai and Tang, "A Multi-level Distillation based Dense Passage Retrieval
Model", arXiv 2312.16821): neither its formulas nor its code are public. VIRT (arXiv 2112.04195) and ERNIE-Search (arXiv
2205.09153) are its neighbors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from sentence_transformers.base.losses.gradcache import RandContext
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mlr_rag.encoders import prompt_of
from mlr_rag.errors import InvalidInputError, UnsupportedModelError
from mlr_rag.training.loss import ListLoss
from mlr_rag.training.losses import word_kl
from mlr_rag.training.losses._checks import check_positive_number
from mlr_rag.training.multilevel.attention import CrossAttention, check_shared_tokenizer
from mlr_rag.training.multilevel.dynamic_filter import DynamicFalseNegativeFilter, DynamicInfoNCE
from mlr_rag.training.objectives import ListwiseKL, Objective, WeightedSum
from mlr_rag.training.teachers.models import CrossEncoderTeacher

__all__ = [
    "CrossAttention",
    "DynamicFalseNegativeFilter",
    "DynamicInfoNCE",
    "MultiLevelLoss",
    "check_shared_tokenizer",
    "multi_level_objective",
]

Features = dict[str, Any]
Words = list[tuple[Tensor, list[int]]]  # of each text: where its words are among its tokens, and their ids


def multi_level_objective(
    contrastive_weight: float = 0.1, filter: DynamicFalseNegativeFilter | None = None
) -> WeightedSum:
    """The sentence level: listwise distillation and, with a weight, InfoNCE with the dynamic filter."""
    return WeightedSum((1.0, ListwiseKL()), (contrastive_weight, DynamicInfoNCE(filter=filter)))


class MultiLevelLoss(ListLoss):
    """A ListLoss with a word level: L = objective + word_weight * mean over pairs of KL(A_T || A_S).

    Our own reading of MD2PR's abstract. A_T is the cross-encoder's attention (see CrossAttention), computed as lists
    are seen; A_S the softmax over document words of q_i . k_j / sqrt(d) between the student's last-layer token vectors.
    The pairs are each query with the passages of its own list. Words are compared that both models read; special tokens
    and the student's prompts are left out. With the gradient cache, the token vectors of a batch are held in memory,
    but no activations.

    Args:
        model: As for ListLoss; its vectors must be as wide as its layers.
        cross_encoder: The teacher, a sentence-transformers CrossEncoder with the same tokenizer. Its scores come with
            the lists.
        objective: The sentence level; `multi_level_objective()` by default.
        word_weight: Of the word level.
        word_temperature: Of the student's map.
        **options: ListLoss's, save `skip_gradient`, whose bound is of the passages' vectors alone.

    Raises:
        UnsupportedModelError: the tokenizers differ, or a model cannot be used.
        InvalidInputError: an option is out of range.
    """

    def __init__(
        self,
        model: Any,
        cross_encoder: Any,
        objective: Objective | None = None,
        word_weight: float = 1.0,
        word_temperature: float = 1.0,
        **options: Any,
    ) -> None:
        check_shared_tokenizer(model, cross_encoder)
        check_positive_number("word_weight", word_weight)
        check_positive_number("word_temperature", word_temperature)
        if options.get("skip_gradient"):
            raise InvalidInputError(
                "skip_gradient knows nothing of the words, which have gradients in every passage",
                found=options["skip_gradient"],
                expected=0,
                remedy="Leave it out.",
            )
        super().__init__(model, objective or multi_level_objective(), **options)
        width, layers = model.get_embedding_dimension(), model[0].get_embedding_dimension()
        if width != layers:
            raise UnsupportedModelError(
                "a layer after the pooling changes the vectors' width", found=width, expected=layers
            )
        self.word_weight, self.word_temperature = word_weight, word_temperature
        self.teacher = CrossEncoderTeacher(cross_encoder).fingerprint  # a run with another teacher is another run
        self.attention = CrossAttention(cross_encoder)
        tokenizer = model.tokenizer
        self._special = torch.tensor(sorted(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}))
        self._prompts = {
            task: tokenizer(prompt_of(model, task), add_special_tokens=False)["input_ids"]
            for task in ("query", "document")
        }
        self._transformer = (model[0],)  # in a tuple, so that its weights stay the model's alone
        self._counts = {"query": 1, "document": 1}

    def forward(self, sentence_features: Iterable[Features], labels: dict[str, Any]) -> dict[str, Tensor]:
        """The loss as its named parts, of which the last is `word_kl`; see ListLoss."""
        features = list(sentence_features)
        return super().forward(features, {**labels, "words": [self._words(each) for each in features]})

    def embed_minibatch(
        self,
        sentence_feature: Features,
        begin: int,
        end: int,
        with_grad: bool,
        copy_random_state: bool,
        random_state: RandContext | None = None,
    ) -> tuple[Tensor, RandContext | None]:
        """The vectors of some rows and, after them, those of their tokens: `(rows, m + T, D)`."""
        with self._tokens() as kept:
            vectors, state = super().embed_minibatch(
                sentence_feature, begin, end, with_grad, copy_random_state, random_state
            )
        self._counts[sentence_feature["task"]] = vectors.shape[1]
        return torch.cat([vectors, kept[-1].to(vectors)], 1), state

    def calculate_loss(  # type: ignore[override]
        self, reps: list[list[Tensor]], labels: dict[str, Any], *, with_backward: bool = False
    ) -> Tensor:
        """See ListLoss."""
        labels = dict(labels)
        words = labels.pop("words")
        vectors, tokens = [], []
        for chunks, count in zip(reps, (self._counts["query"], self._counts["document"]), strict=True):
            # With the cache these are leaves of their own, so that one list's graph is alive at a time.
            parts = [chunk.detach() if with_backward else chunk for chunk in chunks]
            vectors.append([part[:, :count].requires_grad_() if with_backward else part[:, :count] for part in parts])
            tokens.append([row.requires_grad_() if with_backward else row for part in parts for row in part[:, count:]])
        loss = super().calculate_loss(vectors, labels, with_backward=with_backward)
        level = loss.new_zeros(())
        for term in self._word_level(tokens, words, labels["index"]):
            if with_backward:
                term.backward()  # type: ignore[no-untyped-call]
            level = level + (term.detach() if with_backward else term)
        self._parts["word_kl"] = level.detach()
        if with_backward:
            for chunks, own, rows in zip(reps, vectors, tokens, strict=True):
                gradients = iter([torch.zeros_like(row) if row.grad is None else row.grad for row in rows])
                for chunk, part in zip(chunks, own, strict=True):
                    of_tokens = torch.stack([next(gradients) for _ in chunk])
                    chunk.grad = torch.cat([part.grad, of_tokens], 1)  # type: ignore[list-item]
        return loss + level

    def _word_level(self, tokens: list[list[Tensor]], words: list[Words], index: Tensor) -> Iterator[Tensor]:
        """The word level as one weighted term a list, whose sum it is."""
        queries, passages = words
        lists = [[column for column in row if column >= 0] for row in index.tolist()]
        pairs = [(queries[row][1], passages[column][1]) for row, columns in enumerate(lists) for column in columns]
        maps = iter(self.attention(pairs))
        total = sum(bool(query) and bool(passage) for query, passage in pairs)
        if not total:
            raise InvalidInputError("no words in any list of the batch", found=f"{len(pairs)} pairs of empty texts")
        for row, columns in enumerate(lists):
            own = [next(maps) for _ in columns]
            whole = [(found, column) for found, column in zip(own, columns, strict=True) if found.numel()]
            if not whole:
                continue
            query = tokens[0][row][queries[row][0][: len(whole[0][0])]]
            read = [tokens[1][column][passages[column][0][: found.shape[1]]] for found, column in whole]
            document = pad_sequence(read, batch_first=True)
            teacher = pad_sequence([found.T for found, _ in whole], batch_first=True).transpose(1, 2).to(query)
            lengths = torch.tensor([len(each) for each in read], device=query.device)
            there = torch.arange(document.shape[1], device=query.device) < lengths[:, None]
            there = there[:, None] & (teacher.sum(2, keepdim=True) > 0)
            with torch.autocast(query.device.type, enabled=False):
                student = torch.einsum("qd,nkd->nqk", query.float(), document.float()) / math.sqrt(query.shape[1])
            term = word_kl(student, teacher, there, self.word_temperature)
            yield term * (self.word_weight * len(whole) / total)

    def _words(self, features: Features) -> Words:
        """Where the words of each row are, without special tokens and the prompt, and their ids."""
        ids = features["input_ids"].cpu()
        there = features["attention_mask"].cpu().bool() & ~torch.isin(ids, self._special)
        prompt = self._prompts[features["task"]]
        found = []
        for row, kept in zip(ids, there, strict=True):
            places = kept.nonzero()[:, 0]
            own = row[places].tolist()
            begin = next(
                (i for i, pair in enumerate(zip(own, prompt, strict=False)) if pair[0] != pair[1]), len(prompt)
            )
            found.append((places[begin:], own[begin:]))
        return found

    @contextmanager
    def _tokens(self) -> Iterator[list[Tensor]]:
        """The last layer's token vectors of each pass of the transformer meanwhile."""
        kept: list[Tensor] = []
        hook = self._transformer[0].register_forward_hook(lambda _, __, out: kept.append(out["token_embeddings"]))
        try:
            yield kept
        finally:
            hook.remove()
