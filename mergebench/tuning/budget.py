"""What a search may spend, and what it has reached with what it has spent.

Two currencies: candidate evaluations (one is a candidate with one seed, scored on all items of its surrogates; a block counts as
its share, weights that were scored before cost nothing) and GPU-minutes (wall time of directions, installing and scoring, times
the GPUs held; on a CPU simply minutes). What was spent is read from the log, so a search that is taken up again has spent
what it had spent.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergebench.tuning.log import Evaluation

CURVE_COLUMNS = {
    "step": "int64",
    "stage": "object",
    "candidate": "int64",
    "seed": "int64",
    "block": "Int64",
    "evaluations": "float64",
    "gpu_minutes": "float64",
    "objective": "float64",
}
TOLERANCE = 1e-9  # shares of blocks add up with rounding


@dataclass
class Budget:
    """An allowance and what is left of it.

    Attributes:
        evaluations: candidate evaluations; None for no limit.
        gpu_minutes: likewise.
        gpus: held by the job; 0 on a CPU.
        curve: a row per evaluation: what was spent up to it, and the best objective then (NaN before there is one).
    """

    evaluations: float | None = None
    gpu_minutes: float | None = None
    gpus: int = 0
    spent_evaluations: float = 0.0
    spent_minutes: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self.evaluations is not None or self.gpu_minutes is not None

    def allows(self, cost: float, share: float = 1.0) -> bool:
        """Whether an evaluation may begin.

        Args:
            cost: in evaluations.
            share: of the allowance that may be spent so far.
        """
        evaluations = self.evaluations is None or self.spent_evaluations + cost <= share * self.evaluations + TOLERANCE
        return evaluations and (self.gpu_minutes is None or self.spent_minutes < share * self.gpu_minutes)

    def charge(self, evaluation: Evaluation, cost: float) -> None:
        """Count one evaluation; `cost` in evaluations, 0 for an alias."""
        self.spent_evaluations += cost
        self.spent_minutes += evaluation.total_seconds / 60 * max(1, self.gpus)

    def record(self, evaluation: Evaluation, objective: float | None) -> None:
        """Note how far the search is: `objective` is the best of what has been scored completely."""
        self.curve.append(
            {
                "step": len(self.curve),
                "stage": evaluation.stage,
                "candidate": evaluation.candidate,
                "seed": evaluation.seed,
                "block": evaluation.block,
                "evaluations": self.spent_evaluations,
                "gpu_minutes": self.spent_minutes,
                "objective": math.nan if objective is None else objective,
            }
        )

    def write_curve(self, path: Path) -> None:
        """Write the curve as Parquet."""
        import pandas

        frame = pandas.DataFrame(self.curve, columns=list(CURVE_COLUMNS)).astype(CURVE_COLUMNS)
        frame.to_parquet(path, index=False, compression="zstd")
