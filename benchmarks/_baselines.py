"""What multi-layer representations are compared with: ME-BERT, the paper's ColBERT, and MaxSim over all tokens.

ME-BERT (Luan et al., arXiv 2005.00181) takes the first m token vectors of the last layer for a document. What Xie and
Lukasiewicz (arXiv 2509.23861) call ColBERT takes all of them. In both a query is its [CLS] vector, and the score is the
largest of its products with a document's vectors. MaxSim (ColBERT proper) sums that over the query's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.multi_vector_encoder.losses import MultiVectorMultipleNegativesRankingLoss
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from benchmarks._training import Data, as_run, merge
from mlr_rag import MLRModel
from mlr_rag.model.pooling import MultiLayerPooling


class TokenVectors(MultiLayerPooling):
    """The first `count` token vectors of the last layer, in the place of a document's layer vectors.

    A text with fewer tokens has its first vector again for each that it lacks: no maximum changes by that, and no
    gradient.
    """

    def __init__(self, dimension: int, num_layers: int, count: int) -> None:
        super().__init__(dimension, num_layers, (num_layers,), "multi_vector", "cls")
        self.layers, self.count = (num_layers,) * count, count  # as many vectors a document as there are tokens

    def forward(
        self, features: dict[str, Any], task: str | None = None, return_layers: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Add `sentence_embedding` `(B, D)` and, for documents, `layer_embeddings` `(B, count, D)`."""
        tokens, mask = features["token_embeddings"], features["attention_mask"].bool()
        features["sentence_embedding"] = tokens[:, 0]
        if (task or features.get("task")) != "query":
            first = tokens[:, :1]
            real = tokens[:, : self.count].where(mask[:, : self.count, None], first)
            rest = first.expand(-1, self.count - real.shape[1], -1)
            features["layer_embeddings"] = torch.cat([real, rest], dim=1)
        return features


def token_model(base: str, count: int, tokens: int) -> MLRModel:
    """The first `count` token vectors of each document: ME-BERT, or with all of them the paper's ColBERT."""
    transformer = SentenceTransformer(base, device="cpu")[0]
    transformer.max_seq_length = tokens
    config = transformer.model.config
    pooling = TokenVectors(config.hidden_size, config.num_hidden_layers, count)
    return MLRModel(modules=[transformer, pooling, Normalize()], device="cpu")


def maxsim_model(base: str, tokens: int) -> MultiVectorEncoder:
    """Unit vectors of all tokens, of the stock modules; unprojected, as bert-tiny is as narrow as a projection."""
    transformer = SentenceTransformer(base, device="cpu")[0]
    transformer.max_seq_length = tokens
    modules = [transformer, MultiVectorMask(), Normalize("token_embeddings")]
    return MultiVectorEncoder(modules=modules, device="cpu")


def maxsim_loss(model: MultiVectorEncoder) -> nn.Module:
    """The stock loss: InfoNCE over all documents of the batch, of the sums as they are."""
    return MultiVectorMultipleNegativesRankingLoss(model)


def maxsim_batches(
    model: MultiVectorEncoder, data: Data, batches: Iterator[list[tuple[str, list[str]]]]
) -> Iterator[tuple[list[dict[str, Any]], None]]:
    """The batches as the stock loss wants them: a column of queries, one of positives, one of each negative."""
    for rows in batches:
        columns = [[data.train.texts[query] for query, _ in rows]]
        columns += [[data.corpus[id] for id in column] for column in zip(*(ids for _, ids in rows), strict=True)]
        tasks = ["query"] + ["document"] * (len(columns) - 1)
        yield [_tokens(model, texts, task) for texts, task in zip(columns, tasks, strict=True)], None


@torch.inference_mode()
def maxsim_search(model: MultiVectorEncoder, data: Data, split: str, k: int = 100) -> dict[str, dict[str, float]]:
    """The k best documents of every query by MaxSim over the whole corpus."""
    model.eval()
    queries = data.evaluated[split].texts
    asked, asked_mask = _embed(model, list(queries.values()), "query")
    ids = sorted(data.corpus, key=lambda name: len(data.corpus[name]))  # texts of like length, so that little is padded
    best, where = torch.zeros(len(queries), 0), torch.zeros(len(queries), 0, dtype=torch.long)
    for start in range(0, len(ids), 64):
        vectors, mask = _embed(model, [data.corpus[id] for id in ids[start : start + 64]], "document")
        best, where = merge(best, where, maxsim(asked, asked_mask, vectors, mask), start, k)
    return as_run(data.evaluated[split], ids, best, where, k)


def maxsim(queries: Tensor, query_mask: Tensor, documents: Tensor, document_mask: Tensor) -> Tensor:
    """Scores `(q, n)`: for each query token its largest product with a document's tokens, summed.

    Args:
        queries: `(q, s, D)`.
        query_mask: `(q, s)`, True for tokens that count.
        documents: `(n, t, D)`.
        document_mask: `(n, t)`.
    """
    tokens = queries[query_mask]
    owner = query_mask.nonzero()[:, 0]
    products = tokens @ documents.flatten(0, 1).T
    products = products.view(len(tokens), *document_mask.shape).masked_fill_(~document_mask, -torch.inf)
    return products.new_zeros(len(queries), len(documents)).index_add_(0, owner, products.amax(-1))


def _embed(model: MultiVectorEncoder, texts: Sequence[str], task: str) -> tuple[Tensor, Tensor]:
    out = model(_tokens(model, texts, task), task=task)
    return out["token_embeddings"], out["attention_mask"].bool()


def _tokens(model: MultiVectorEncoder, texts: Sequence[str], task: str) -> dict[str, Any]:
    return {**model.preprocess(list(texts), task=task), "task": task}
