"""What `specialize` gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlr_rag.specializing.report.data import Report


@dataclass(frozen=True)
class Specialized:
    """The outcome of a specialization.

    Attributes:
        accepted: Whether a model was found that is surely better than the base.
        model: That model, or else the base.
        metrics: Of the test queries, base → and specialized → metric → mean: of what was tested, accepted or not; both
            are the base's where no candidate was worth testing.
        report: Everything that was measured and decided.
        report_path: The page of the report.
        output: The folder of the model, where one was accepted, and of the report.
    """

    accepted: bool
    model: Any
    metrics: dict[str, dict[str, float]]
    report: Report
    report_path: Path
    output: Path

    def __str__(self) -> str:
        lines = [self.report.verdict, *self.report.reasons]
        if self.report.test is not None:
            for name, metric in self.report.test.metrics.items():
                found = metric.difference
                lines.append(
                    f"{name:11} {metric.base.mean:.3f} -> {metric.specialized.mean:.3f}   "
                    f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], p = {found.p:.2g}"
                )
        lines += self.report.advice
        lines.append(f"model:  {self.output if self.accepted else f'the base, {self.report.model}'}")
        return "\n".join([*lines, f"report: {self.report_path}"])
