"""What a user sees of a training run: progress with loss and speed, a clear stop at divergence, the loss log."""

import json
import math
import time
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import TrainerCallback

from mergebench.errors import MergebenchError

Progress = Callable[..., None]  # `Job.progress`

WINDOW = 20  # steps whose mean loss tells whether a run diverges

# Of what a trainer logs, the facts that an identical run repeats (no times, and no token count: a resumed run restarts it).
LOGGED = (
    "step", "epoch", "loss", "grad_norm", "learning_rate", "entropy", "mean_token_accuracy",
    "reward", "reward_std", "frac_reward_zero_std", "kl", "rewards/accuracy_reward/mean",
    "rewards/format_reward/mean", "completions/mean_length", "completions/clipped_ratio",
)  # fmt: skip
AT_THE_END = ("step", "epoch", "grad_norm", "learning_rate")  # of an interval, the others are means


class Watch(TrainerCallback):
    """Reports each step to `progress` and to the file `log`, and stops a run that diverges.

    Args:
        log: JSONL, one line per step as it ends, for who wants to look on. Lines of steps that a resumed run does again are
            taken out.
        tokens: of each step; the speed is that since this process began.
        divergence: nats that the mean loss of `WINDOW` steps may lie above the lowest such mean before it; None: no limit.
    """

    def __init__(
        self,
        what: str,
        progress: Progress,
        *,
        log: Path | None = None,
        tokens: Sequence[int] | None = None,
        divergence: float | None = None,
    ) -> None:
        self.what, self.progress, self.log, self.tokens, self.divergence = what, progress, log, tokens, divergence
        self.latest = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.first, self.began = state.global_step, time.monotonic()
        if self.log and state.is_world_process_zero:
            cut_log(self.log, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        assert logs is not None
        if not math.isfinite(loss):
            raise MergebenchError(
                f"{self.what}: the loss became {loss} by step {state.global_step}; "
                "lower learning_rate or raise warmup, and look for broken rows in the data."
            )
        if self.divergence is not None and (rise := risen([h["loss"] for h in state.log_history if "loss" in h])) > self.divergence:
            raise MergebenchError(
                f"{self.what} {state.global_step}: the loss diverges: its mean over the last {WINDOW} steps is {rise:.2f} above the lowest "
                f"before, more than the {self.divergence:g} of divergence; lower learning_rate or max_grad_norm, or raise warmup."
            )
        reward = logs.get("reward")
        self.latest = f", reward {reward:.3f}" if reward is not None else f", loss {loss:.3f}"
        if self.log and state.is_world_process_zero:
            line = {"step": state.global_step} | {key: logs[key] for key in LOGGED if key in logs}
            with self.log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line | self._speed(state.global_step)) + "\n")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            speed = self._speed(state.global_step).get("tokens_per_second")
            said = f"{self.what}{self.latest}" + (f", {speed:,.0f} tokens/s" if speed else "")
            self.progress(state.global_step, state.max_steps, said, before=self.first)

    def _speed(self, step: int) -> dict[str, float]:
        seconds = time.monotonic() - self.began
        facts = {"seconds": round(seconds, 3)}
        if self.tokens is None or seconds <= 0:
            return facts
        return facts | {"tokens_per_second": round(sum(self.tokens[self.first : step]) / seconds, 1)}


def risen(losses: Sequence[float]) -> float:
    """By how much the mean of the last `WINDOW` losses lies above the lowest mean of as many before; 0 without two windows.

    The windows are those that end where the last does, so that each loss counts once.
    """
    ends = range(len(losses), WINDOW - 1, -WINDOW)
    means = [fmean(losses[end - WINDOW : end]) for end in ends]
    return means[0] - min(means[1:], default=means[0]) if means else 0.0


def cut_log(path: Path, step: int) -> None:
    """Leave only the lines of a live log up to `step`, and none that was cut off in the middle."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            continue
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    temporary.replace(path)


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
