"""The multi-layer representation model."""

from mlr_rag.model.model import MLRModel
from mlr_rag.model.pooling import MultiLayerPooling

__all__ = ["MLRModel", "MultiLayerPooling"]
