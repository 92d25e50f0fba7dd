"""Losses as pure functions of score tensors; each names its paper and equation."""

from mlr_rag.training.losses.contrastive import infonce, last_reg, multi_vector, self_contrastive
from mlr_rag.training.losses.distillation import false_negatives, listwise_kl, normalize_teacher
from mlr_rag.training.losses.graded import wasserstein
from mlr_rag.training.losses.pairwise import mann_whitney, margin_mse
from mlr_rag.training.losses.words import word_kl

__all__ = [
    "false_negatives",
    "infonce",
    "last_reg",
    "listwise_kl",
    "mann_whitney",
    "margin_mse",
    "multi_vector",
    "normalize_teacher",
    "self_contrastive",
    "wasserstein",
    "word_kl",
]
