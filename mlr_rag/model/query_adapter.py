"""QueryAdapter: a small correction of the queries' vectors, for a model whose documents stay as they are.

After ADDER ("Adapted Dense Retrieval", arXiv 2310.05380), which adds a low-rank residual to the vectors of a model that
is otherwise left alone. Its abstract gives the idea; the two formulas are recollected, not read in the paper, and only
the query side is kept of it, so that every stored vector stays valid. The name and place of the class are part of the
format of saved models.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from sentence_transformers.base.modules.module import Module
from torch import Tensor, nn

from mlr_rag.errors import InvalidInputError

AdapterForm = Literal["linear", "keys"]


class QueryAdapter(Module):
    """Moves the vector e `(B, D)` of a query, and passes a document's.

        linear    e' = e + B A e                          A (r, D), B (D, r)
        keys      e' = e + |e| V' softmax(K e / |e|)      K (r, D), V (r, D): what the r nearest keys say, added up

    B and V are zero at the start, so that a fresh adapter changes nothing. The length of e plays no part in either.

    Args:
        dimension: D.
        rank: r, from 1 to D.
        form: "linear" or "keys".
        seed: Of A or K; torch's global random state is neither used nor moved.

    Raises:
        InvalidInputError: no such form or rank.
    """

    config_keys: list[str] = ["dimension", "rank", "form"]  # noqa: RUF012  (as the base class declares it)
    forward_kwargs: set[str] = {"task"}  # noqa: RUF012

    def __init__(self, dimension: int, rank: int = 16, form: AdapterForm = "linear", seed: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if form not in get_args(AdapterForm):
            raise InvalidInputError("an unknown form", found=form, expected=" | ".join(get_args(AdapterForm)))
        if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= dimension:
            raise InvalidInputError("no such rank", found=rank, expected=f"1 to {dimension}")
        self.dimension, self.rank, self.form = dimension, rank, form
        # Rows of about unit length see a unit vector's parts ("linear"); keys are spread enough to tell queries apart.
        spread = dimension**-0.5 if form == "linear" else 1.0
        drawn = torch.randn(rank, dimension, generator=torch.Generator().manual_seed(seed))
        self.read = nn.Parameter(spread * drawn)
        self.write = nn.Parameter(torch.zeros(rank, dimension))

    def forward(self, features: dict[str, Any], task: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Adapt `sentence_embedding` where the task is "query"."""
        if (task or features.get("task")) == "query":
            features["sentence_embedding"] = self.adapt(features["sentence_embedding"])
        return features

    def adapt(self, vectors: Tensor) -> Tensor:
        """The queries' vectors, moved: `(B, D)` for `(B, D)`, in their dtype."""
        read, write = self.read.to(vectors.dtype), self.write.to(vectors.dtype)
        if self.form == "linear":
            move = vectors @ read.T @ write
        else:
            length = vectors.norm(dim=-1, keepdim=True)
            nearest = (vectors / length.clamp_min(1e-12) @ read.T).softmax(-1)
            move = length * (nearest @ write)
        return vectors + move

    def get_embedding_dimension(self) -> int:
        """Width of the vectors."""
        return self.dimension

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the configuration, and the weights as safetensors."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=True)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> QueryAdapter:  # type: ignore[override]
        """Read what `save` wrote, from a local folder."""
        module = cls(**cls.load_config(model_name_or_path, subfolder=subfolder, local_files_only=True))
        cls.load_torch_weights(model_name_or_path, subfolder=subfolder, local_files_only=True, model=module)
        return module
