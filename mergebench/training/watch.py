"""What a user sees of a training run: progress with the loss, a clear stop at divergence, the loss log."""

import json
import math
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import TrainerCallback

from mergebench.errors import MergebenchError

Progress = Callable[[float, float, str], None]

# Of what a trainer logs, the facts that an identical run repeats (no times, and no token count: a resumed run restarts it).
LOGGED = (
    "step", "epoch", "loss", "grad_norm", "learning_rate", "entropy", "mean_token_accuracy",
    "reward", "reward_std", "frac_reward_zero_std", "kl", "rewards/accuracy_reward/mean",
    "rewards/format_reward/mean", "completions/mean_length", "completions/clipped_ratio",
)  # fmt: skip
AT_THE_END = ("step", "epoch", "grad_norm", "learning_rate")  # of an interval, the others are means


class Watch(TrainerCallback):
    """Reports each step to `progress` and stops a run whose loss is no longer a finite number."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.what, self.progress = what, progress
        self.latest = ""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            raise MergebenchError(
                f"{self.what}: the loss became {loss} by step {state.global_step}; "
                "lower learning_rate or raise warmup, and look for broken rows in the data."
            )
        reward = (logs or {}).get("reward")
        self.latest = f", reward {reward:.3f}" if reward is not None else f", loss {loss:.3f}"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.progress(state.global_step, state.max_steps, f"{self.what}{self.latest}")


def by_interval(history: list[dict[str, Any]], every: int) -> list[dict[str, Any]]:
    """A trainer's log of single steps as one line for every `every` steps, and one for the rest.

    A line has the means over its steps, and the last step's own of `AT_THE_END`. The history is part of a checkpoint and
    has no sums under way, so the lines of a resumed run are those of an uninterrupted one.
    """
    steps = [entry for entry in history if "loss" in entry]
    lines = []
    for _, interval in groupby(steps, key=lambda entry: (entry["step"] - 1) // every):
        entries = list(interval)
        values = {key: [entry[key] for entry in entries if key in entry] for key in LOGGED}
        lines.append({key: found[-1] if key in AT_THE_END else fmean(found) for key, found in values.items() if found})
    return lines


def write_log(lines: list[dict[str, Any]], path: Path) -> None:
    """Write the lines of a log as JSONL."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
