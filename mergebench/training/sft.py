"""Supervised fine-tuning with TRL's SFTTrainer on samples that are tokenised, masked, ordered and packed beforehand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.utils.data
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from mergebench.training import engine, lora
from mergebench.training.engine import Run, Trained
from mergebench.training.examples import IGNORED
from mergebench.training.mixture import epoch_rows, example_order
from mergebench.training.packing import Row, steps_of_packs, steps_of_samples
from mergebench.training.samples import Joined
from mergebench.training.settings import SftSettings
from mergebench.training.watch import Watch


@dataclass(frozen=True)
class Schedule:
    """All rows of a run in the order in which they are trained on, `per_step` for each optimizer step."""

    rows: list[Row]
    per_step: int
    micro: int  # rows of one forward pass of one process
    tokens: list[int]  # of each step
    samples: int

    @property
    def steps(self) -> int:
        return len(self.tokens)


def schedule(samples: Joined, settings: SftSettings, seed: int, processes: int = 1) -> Schedule:
    """Which samples lie in which row of which step.

    Which samples enter a step does not depend on the number of processes; how they are packed does. Without `steps`, as many
    steps as it takes to pass over the mixture `epochs` times.
    """
    if not settings.packing:
        order = _order(samples, settings, seed)
        steps = [[[index] for index in order[i : i + settings.batch_size]] for i in range(0, len(order), settings.batch_size)]
        micro = settings.micro_batch_size or max(1, settings.batch_size // processes)
    else:
        micro = settings.micro_batch_size or 1
        unit = micro * processes
        if settings.batch_unit == "samples":
            order = _order(samples, settings, seed)
            steps = steps_of_samples(order, samples.lengths, settings.batch_size, settings.max_length, unit)
        else:
            steps = _packs(samples, settings, seed, unit)
    return Schedule(
        rows=[row for step in steps for row in step],
        per_step=len(steps[0]),
        micro=micro,
        tokens=[sum(samples.lengths[index] for row in step for index in row) for step in steps],
        samples=sum(len(row) for step in steps for row in step),
    )


def _order(samples: Joined, settings: SftSettings, seed: int, *, count: int | None = None) -> list[int]:
    """Samples in the order in which they enter, `batch_size` for each step, or at least `count`."""
    parts = [samples.lengths[start:end] for start, end in zip(samples.starts, samples.starts[1:], strict=False)]
    wanted = count or _epochs(samples, settings)
    return example_order(
        parts,
        batch_size=settings.batch_size,
        steps=settings.steps if settings.steps and not count else math.ceil(wanted / settings.batch_size),
        mixture=settings.mixture,
        group_by_length=settings.group_by_length,
        seed=seed,
    )


def _epochs(samples: Joined, settings: SftSettings) -> int:
    """Samples that make `epochs` passes over the mixture."""
    return math.ceil(settings.epochs * sum(epoch_rows([*map(len, samples.parts)], settings.mixture)))


def _packs(samples: Joined, settings: SftSettings, seed: int, unit: int) -> list[list[Row]]:
    """Steps of full rows: those of `epochs` passes over the samples, or the first `steps`."""
    lengths, batch = samples.lengths, settings.batch_size
    if settings.steps is None:
        count = _epochs(samples, settings)
        return steps_of_packs(_order(samples, settings, seed, count=count)[:count], lengths, batch, settings.max_length, unit)
    wanted = settings.steps * batch * settings.max_length  # tokens that surely fill as many rows
    count = math.ceil(wanted * len(samples) / sum(lengths))
    while sum(lengths[index] for index in _order(samples, settings, seed, count=count)) < wanted:
        count *= 2
    order = _order(samples, settings, seed, count=count)
    return steps_of_packs(order, lengths, batch, settings.max_length, unit)[: settings.steps]


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """The rows of a schedule as TRL's collator wants them, put together when they are asked for."""

    def __init__(self, rows: Sequence[Row], samples: Joined, packed: bool) -> None:
        self.rows, self.samples, self.packed = rows, samples, packed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        examples = [self.samples[index] for index in self.rows[number]]
        if not examples:  # a filler: nothing to learn, and the smallest row that has a next token
            return {"input_ids": [0, 0], "labels": [IGNORED, IGNORED], "seq_lengths": [2]}
        row: dict[str, Any] = {
            "input_ids": np.concatenate([np.asarray(example.input_ids, dtype=np.int64) for example in examples]),
            "labels": np.concatenate([np.asarray(example.labels, dtype=np.int64) for example in examples]),
        }
        return row | {"seq_lengths": [len(example.input_ids) for example in examples]} if self.packed else row


def train_sft(
    init: Path, tokenizer: Any, samples: Joined, plan: Schedule, settings: SftSettings, run: Run
) -> tuple[list[dict[str, Any]], Trained]:
    """Fine-tune the model of the folder `init` on the rows of `plan`; returns the lines of the log and the trainer.

    The loss of a step is the mean over its response tokens, those of all processes together.

    Raises:
        Preempted: a signal arrived; the state is saved and the same call continues from it.
        MergebenchError: the loss diverged, or the batch does not divide into micro-batches.
    """
    rows = Rows(plan.rows, samples, settings.packing)
    config = SFTConfig(
        **engine.arguments(settings, plan.steps, plan.per_step, plan.micro, run),
        max_length=settings.max_length,
        packing=settings.packing,  # rows are packed already: what is left to do is to collate them without an attention mask
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = SFTTrainer(
        model=engine.load(init, settings),
        args=config,
        train_dataset=Dataset.from_list([{name: [*map(int, values)] for name, values in rows[0].items()}]),  # trl looks at one row
        processing_class=tokenizer,
        peft_config=lora.peft_config(settings.lora),
    )
    trainer.train_dataset = rows
    watch = Watch("sft step", run.progress, log=run.live_log, tokens=plan.tokens, divergence=settings.divergence)
    return engine.fit(trainer, settings, run, watch), trainer
