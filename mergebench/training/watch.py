"""What a user sees of a training run: progress with the loss, a clear stop at divergence, the loss log."""

import json
import math
from collections.abc import Callable
from pathlib import Path
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


def write_log(history: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Write a trainer's log history as JSONL, one line per logged step; returns the lines.

    The history is part of a checkpoint, so the log of a resumed run has no gap and no repetition.
    """
    lines = [{key: entry[key] for key in LOGGED if key in entry} for entry in history if "loss" in entry]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return lines
