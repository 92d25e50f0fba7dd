"""Word-level distillation: what a cross-encoder's query words look at in a document.

Our own reading of the abstract of MD2PR (Li, Hai and Tang, arXiv 2312.16821), whose formulas are not public. Its
neighbors are VIRT (arXiv 2112.04195) and ERNIE-Search (arXiv 2205.09153).
"""

from __future__ import annotations

import math

from torch import Tensor

from mlr_rag.errors import InvalidInputError
from mlr_rag.training.losses._checks import check_axes, check_finite, check_positive_number, check_shape


def word_kl(student: Tensor, teacher: Tensor, words: Tensor, temperature: float = 1.0) -> Tensor:
    """KL( A_T(i, .) || softmax_j(s_ij / T) ), the mean over a pair's query words i, then over the pairs.

    Our own reading of MD2PR's abstract: A_T is the teacher's attention from query words to document words, s_ij the
    student's interactions q_i . k_j / sqrt(d). The teacher gets no gradient. A pair in which no words face each other
    (an empty text) is left out of the mean.

    Args:
        student: `(B, Q, K)` interactions of B pairs, Q query words and K document words.
        teacher: `(B, Q, K)` attention, 0 or more; renormalized over the words that are there.
        words: `(B, Q, K)` bool, True where a query word faces a document word; elsewhere is padding.
        temperature: T.

    Raises:
        InvalidInputError: shapes that differ, something not finite, negative attention, a query word without any
            attention, or no words in any pair.
    """
    check_positive_number("temperature", temperature)
    check_axes(student, "(B, Q, K)", "student")
    check_shape(teacher, student.shape, "(B, Q, K)", "teacher")
    check_shape(words, student.shape, "(B, Q, K)", "words", boolean=True)
    student = check_finite(student, "student", where=words)
    attention = check_finite(teacher.detach(), "teacher", where=words).to(student)
    attention = attention.masked_fill(~words, 0.0)
    queries, mass = words.any(2), attention.sum(2)
    if (attention < 0).any() or (queries & (mass <= 0)).any():
        raise InvalidInputError("teacher is no attention", expected="0 or more, and some for every query word")
    if not queries.any():
        raise InvalidInputError("no words to compare", found=f"{len(words)} pairs of empty texts", expected="words")
    target = attention / mass.masked_fill(~queries, 1.0)[..., None]
    # A row without words must not be all -inf: its softmax would be NaN, and so would every gradient.
    logits = (student / temperature).masked_fill(~words, -math.inf).masked_fill(~queries[..., None], 0.0)
    log_q = logits.log_softmax(2).masked_fill(~words, 0.0)
    divergence = (target.xlogy(target) - target * log_q).sum(2)  # (B, Q), 0 where there is no query word
    counts = queries.sum(1)
    return (divergence.sum(1) / counts.clamp(min=1)).sum() / (counts > 0).sum()
