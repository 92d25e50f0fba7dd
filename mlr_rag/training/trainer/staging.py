"""StagedCheckpoints: what our trainers share, so that a run can be killed while it writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, ProgressCallback

from mlr_rag.training.trainer.checkpoints import RunFolder

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = object


class StagedCheckpoints(Trainer):
    """A part of a trainer: checkpoints are complete or not there, and neither cards nor transformers' bars appear.

    Attributes:
        folder: Where checkpoints go.
        limit: How many are kept; the best and the last always are. None keeps all.
    """

    folder: RunFolder
    limit: int | None = 1
    _staging: Path | None = None

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: a model card would quote training texts and ask the hub for names."""

    def remove_bars(self) -> None:
        """Progress is shown by mlr_rag.progress."""
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)

    def finish_checkpoint(self, partial: Path) -> None:
        """What a checkpoint still needs before it takes its name."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or self.args.output_dir)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with self.folder.writing(self.state.global_step) as partial:
            self._staging = partial.parent
            super()._save_checkpoint(model, trial)
            self._staging = None
            self.finish_checkpoint(partial)
        self.folder.prune(self.state.best_global_step, self.limit)
