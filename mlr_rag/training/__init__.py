"""Training: candidates, teachers, lists, objectives and the trainer (`pip install 'mlr-rag[train]'`).

    candidates = mine(queries, corpus, [Dense(model), BM25()])
    scores = score_candidates(teacher, queries, corpus, candidates, ScoreCache("scores.sqlite"), qrels=qrels)
    lists, counts = build_lists(queries, corpus, qrels, candidates, scores)
    MLRTrainer(model, lists, args=MLRTrainingArguments("run"), evaluator=RetrievalEvaluator(...)).train()

docs/training.md tells the rest; `mlr_rag.training.losses` are the formulas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlr_rag.lazy import getter

if TYPE_CHECKING:
    from mlr_rag.evaluation.evaluator import RetrievalEvaluator
    from mlr_rag.training.collator import ListCollator
    from mlr_rag.training.lists import ListBatch, TrainingList, check_lists, to_dataset
    from mlr_rag.training.llm import LanguageModel
    from mlr_rag.training.loss import ListLoss
    from mlr_rag.training.mining.bm25 import BM25
    from mlr_rag.training.mining.building import Counts, build_lists, percentiles, with_scores
    from mlr_rag.training.mining.candidates import Dense, mine, rrf, score_candidates
    from mlr_rag.training.mining.consistency import confident, consistent, teacher_agrees
    from mlr_rag.training.mining.vectors import VectorCache
    from mlr_rag.training.multilevel.dynamic_filter import DynamicFalseNegativeFilter, DynamicInfoNCE
    from mlr_rag.training.multilevel.loss import MultiLevelLoss, multi_level_objective
    from mlr_rag.training.objectives import (
        InfoNCE,
        LastReg,
        ListwiseKL,
        MannWhitney,
        MarginMSE,
        MultiVector,
        Objective,
        SelfContrastive,
        Wasserstein,
        WeightedSum,
        default_objective,
    )
    from mlr_rag.training.query_side import QueryTraining, train_query_adapter
    from mlr_rag.training.teachers.cross_encoder import TrainedTeacher, train_cross_encoder
    from mlr_rag.training.teachers.judges import LLMJudge
    from mlr_rag.training.teachers.models import BiEncoderTeacher, CrossEncoderTeacher
    from mlr_rag.training.teachers.reranking import rerank
    from mlr_rag.training.teachers.scores import ScoreCache
    from mlr_rag.training.teachers.teacher import CallableTeacher, MeanTeacher, Teacher, as_teacher
    from mlr_rag.training.trainer.arguments import MLRTrainingArguments
    from mlr_rag.training.trainer.lora import add_lora, merge_lora
    from mlr_rag.training.trainer.trainer import MLRTrainer, TrainingResult

_HOME = {
    "BM25": "mlr_rag.training.mining.bm25",
    "BiEncoderTeacher": "mlr_rag.training.teachers.models",
    "CallableTeacher": "mlr_rag.training.teachers.teacher",
    "Counts": "mlr_rag.training.mining.building",
    "CrossEncoderTeacher": "mlr_rag.training.teachers.models",
    "Dense": "mlr_rag.training.mining.candidates",
    "DynamicFalseNegativeFilter": "mlr_rag.training.multilevel.dynamic_filter",
    "DynamicInfoNCE": "mlr_rag.training.multilevel.dynamic_filter",
    "InfoNCE": "mlr_rag.training.objectives",
    "LLMJudge": "mlr_rag.training.teachers.judges",
    "LanguageModel": "mlr_rag.training.llm",
    "LastReg": "mlr_rag.training.objectives",
    "ListBatch": "mlr_rag.training.lists",
    "ListCollator": "mlr_rag.training.collator",
    "ListLoss": "mlr_rag.training.loss",
    "ListwiseKL": "mlr_rag.training.objectives",
    "MLRTrainer": "mlr_rag.training.trainer.trainer",
    "MLRTrainingArguments": "mlr_rag.training.trainer.arguments",
    "MannWhitney": "mlr_rag.training.objectives",
    "MarginMSE": "mlr_rag.training.objectives",
    "MeanTeacher": "mlr_rag.training.teachers.teacher",
    "MultiLevelLoss": "mlr_rag.training.multilevel.loss",
    "MultiVector": "mlr_rag.training.objectives",
    "Objective": "mlr_rag.training.objectives",
    "QueryTraining": "mlr_rag.training.query_side",
    "RetrievalEvaluator": "mlr_rag.evaluation.evaluator",
    "ScoreCache": "mlr_rag.training.teachers.scores",
    "SelfContrastive": "mlr_rag.training.objectives",
    "Teacher": "mlr_rag.training.teachers.teacher",
    "TrainedTeacher": "mlr_rag.training.teachers.cross_encoder",
    "TrainingList": "mlr_rag.training.lists",
    "TrainingResult": "mlr_rag.training.trainer.trainer",
    "VectorCache": "mlr_rag.training.mining.vectors",
    "Wasserstein": "mlr_rag.training.objectives",
    "WeightedSum": "mlr_rag.training.objectives",
    "add_lora": "mlr_rag.training.trainer.lora",
    "as_teacher": "mlr_rag.training.teachers.teacher",
    "build_lists": "mlr_rag.training.mining.building",
    "check_lists": "mlr_rag.training.lists",
    "confident": "mlr_rag.training.mining.consistency",
    "consistent": "mlr_rag.training.mining.consistency",
    "default_objective": "mlr_rag.training.objectives",
    "merge_lora": "mlr_rag.training.trainer.lora",
    "mine": "mlr_rag.training.mining.candidates",
    "multi_level_objective": "mlr_rag.training.multilevel.loss",
    "percentiles": "mlr_rag.training.mining.building",
    "rerank": "mlr_rag.training.teachers.reranking",
    "rrf": "mlr_rag.training.mining.candidates",
    "score_candidates": "mlr_rag.training.mining.candidates",
    "teacher_agrees": "mlr_rag.training.mining.consistency",
    "to_dataset": "mlr_rag.training.lists",
    "train_cross_encoder": "mlr_rag.training.teachers.cross_encoder",
    "train_query_adapter": "mlr_rag.training.query_side",
    "with_scores": "mlr_rag.training.mining.building",
}
__all__ = [
    "BM25",
    "BiEncoderTeacher",
    "CallableTeacher",
    "Counts",
    "CrossEncoderTeacher",
    "Dense",
    "DynamicFalseNegativeFilter",
    "DynamicInfoNCE",
    "InfoNCE",
    "LLMJudge",
    "LanguageModel",
    "LastReg",
    "ListBatch",
    "ListCollator",
    "ListLoss",
    "ListwiseKL",
    "MLRTrainer",
    "MLRTrainingArguments",
    "MannWhitney",
    "MarginMSE",
    "MeanTeacher",
    "MultiLevelLoss",
    "MultiVector",
    "Objective",
    "QueryTraining",
    "RetrievalEvaluator",
    "ScoreCache",
    "SelfContrastive",
    "Teacher",
    "TrainedTeacher",
    "TrainingList",
    "TrainingResult",
    "VectorCache",
    "Wasserstein",
    "WeightedSum",
    "add_lora",
    "as_teacher",
    "build_lists",
    "check_lists",
    "confident",
    "consistent",
    "default_objective",
    "merge_lora",
    "mine",
    "multi_level_objective",
    "percentiles",
    "rerank",
    "rrf",
    "score_candidates",
    "teacher_agrees",
    "to_dataset",
    "train_cross_encoder",
    "train_query_adapter",
    "with_scores",
]

__getattr__ = getter(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
