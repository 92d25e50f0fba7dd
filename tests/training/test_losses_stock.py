"""Ours equal sentence-transformers' own losses where it has them, in value and in gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sentence_transformers import util
from sentence_transformers.sentence_transformer import losses as stock
from torch import Tensor, nn
from torch.nn.functional import normalize

from mlr_rag.training import losses

QUERIES, PER_QUERY, DIMENSION = 6, 4, 8


class Table(nn.Module):
    """A model whose embedding of a one-token text is a row of a table."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(QUERIES * (1 + PER_QUERY), DIMENSION, generator=generator, dtype=torch.float64)
        self.rows = nn.Parameter(rows)

    def __getitem__(self, index: int) -> nn.Module:
        return self  # the cached losses look at the first module's class

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return {"sentence_embedding": self.rows[features["input_ids"][:, 0]]}


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def teacher() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(QUERIES, PER_QUERY, generator=generator, dtype=torch.float64)


def columns() -> list[dict[str, Tensor]]:
    """A query, and then the first, second, ... passage of every query."""
    ids = torch.arange(QUERIES * (1 + PER_QUERY)).view(1 + PER_QUERY, QUERIES)
    return [{"input_ids": row[:, None], "attention_mask": torch.ones(QUERIES, 1, dtype=torch.long)} for row in ids]


def parts(table: Table) -> tuple[Tensor, Tensor]:
    """Queries `(B, D)`, and passages `(n, B, D)` as the columns have them."""
    rows = table.rows.view(1 + PER_QUERY, QUERIES, DIMENSION)
    return rows[0], rows[1:]


def own_lists(table: Table) -> Tensor:
    queries, passages = parts(table)
    return torch.einsum("bd,nbd->bn", queries, passages)


def assert_same(table: Table, ours: Tensor, theirs: Tensor) -> None:
    (gradient,) = torch.autograd.grad(ours, table.rows)
    table.rows.grad = None
    theirs.backward()  # the cached losses do their work here
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    torch.testing.assert_close(gradient, table.rows.grad, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.01, 1.0])
def test_infonce_is_multiple_negatives_ranking(table: Table, temperature: float) -> None:
    queries, passages = parts(table)
    scores = normalize(queries, dim=-1) @ normalize(passages.flatten(0, 1), dim=-1).T
    ours = losses.infonce(scores, torch.arange(QUERIES), temperature)
    theirs = stock.MultipleNegativesRankingLoss(table, scale=1 / temperature)(columns(), None)
    assert_same(table, ours, theirs)


def test_infonce_is_cached_multiple_negatives_ranking(table: Table) -> None:
    queries, passages = parts(table)
    ours = losses.infonce(queries @ passages.flatten(0, 1).T, torch.arange(QUERIES), 0.2)
    cached = stock.CachedMultipleNegativesRankingLoss(
        table, scale=5.0, similarity_fct=util.dot_score, mini_batch_size=2
    )
    assert_same(table, ours, cached(columns(), None))


def test_margin_mse_is_theirs(table: Table, teacher: Tensor) -> None:
    ours = losses.margin_mse(own_lists(table), teacher, torch.zeros(QUERIES, dtype=torch.long))
    assert_same(table, ours, stock.MarginMSELoss(table)(columns(), teacher))


@pytest.mark.parametrize(("student_temperature", "teacher_temperature"), [(0.05, 0.3), (1.0, 1.0), (0.5, 2.0)])
def test_listwise_kl_times_the_squared_temperature_is_theirs(
    table: Table, teacher: Tensor, student_temperature: float, teacher_temperature: float
) -> None:
    ours = losses.listwise_kl(own_lists(table), teacher, student_temperature, teacher_temperature)
    theirs = stock.DistillKLDivLoss(
        table, student_temperature=student_temperature, teacher_temperature=teacher_temperature
    )
    assert_same(table, ours * student_temperature**2, theirs(columns(), teacher))
