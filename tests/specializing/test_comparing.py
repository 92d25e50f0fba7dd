"""How many candidates the test queries have been asked with."""

from __future__ import annotations

import pytest

from mlr_rag import MLRModel
from mlr_rag.specializing.comparing import compare
from mlr_rag.specializing.material import Judged
from mlr_rag.specializing.precision import HalfPrecisionVectors
from mlr_rag.specializing.report.data import Comparison, QueryScore

CORPUS = {f"d{n}": f"passage {n} of things" for n in range(12)}
TEST = Judged({f"q{n}": f"passage {n}" for n in range(8)}, {f"q{n}": {f"d{n}": 1} for n in range(8)})


def _earlier(gains: list[float]) -> Comparison:
    scores = tuple(
        QueryScore(id=f"q{n}", text=f"passage {n}", base=0.0, specialized=gain) for n, gain in enumerate(gains)
    )
    return Comparison(metrics={}, per_query=scores)


@pytest.mark.parametrize(
    ("earlier", "looks"),
    [
        ([], 1),
        ([_earlier([0.5] * 8)], 2),
        ([_earlier([0.5] * 8), _earlier([0.5] * 8)], 2),  # the same candidate, in two runs
        ([_earlier([0.5] * 8), _earlier([0.25] * 8)], 3),
        ([_earlier([0.5] * 4)], 2),  # half of the queries
        ([_earlier([0.5] * 3)], 1),
        ([_earlier([0.0] * 8)], 1),  # the base with itself
    ],
)
def test_other_candidates_on_half_of_the_queries_count(
    tiny_model: MLRModel, earlier: list[Comparison], looks: int
) -> None:
    groups = {id: n for n, id in enumerate(TEST.queries)}
    found = compare(tiny_model, tiny_model, TEST, groups, CORPUS, HalfPrecisionVectors(), earlier)
    assert found.looks == looks
