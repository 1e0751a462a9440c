"""Supervised fine-tuning with TRL's SFTTrainer on rows that are tokenised, masked and ordered beforehand."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from mergebench.errors import MergebenchError
from mergebench.training import distributed
from mergebench.training.examples import Example
from mergebench.training.mixture import example_order
from mergebench.training.preemption import Preemption, Signals, run_trainer
from mergebench.training.settings import SftSettings, TrainingSettings
from mergebench.training.watch import Progress, Watch, by_interval


@dataclass(frozen=True)
class Run:
    """Where a training run keeps its checkpoints, who it is, whom it tells and who can stop it."""

    state: Path
    key: str
    seed: int
    progress: Progress
    signals: Signals

    def report_resume(self, checkpoint: Path) -> None:
        self.progress(0, 0, f"resuming from {checkpoint.name}")


def plan(domains: Sequence[Sequence[Example]], settings: SftSettings, seed: int) -> list[int]:
    """Which example enters when: indices into the concatenated domains, `batch_size` for each optimizer step.

    Without `steps`, as many steps as it takes to draw `epochs` times the number of rows.
    """
    rows = sum(map(len, domains))
    return example_order(
        [[len(example.input_ids) for example in domain] for domain in domains],
        batch_size=settings.batch_size,
        steps=settings.steps or math.ceil(settings.epochs * rows / settings.batch_size),
        mixture=settings.mixture,
        group_by_length=settings.group_by_length,
        seed=seed,
    )


def train_sft(
    model: Any, tokenizer: Any, examples: Sequence[Example], order: Sequence[int], settings: SftSettings, run: Run
) -> list[dict[str, Any]]:
    """Fine-tune `model` in place on `examples` in the given `order`; returns the lines of its log.

    The loss of a step is the mean over its response tokens, those of all processes together.

    Raises:
        Preempted: a signal arrived; the state is saved and the same call continues from it.
        MergebenchError: the loss diverged, or the batch does not divide into micro-batches.
    """
    rows = Dataset.from_dict({"input_ids": [e.input_ids for e in examples], "labels": [e.labels for e in examples]})
    preemption = Preemption(run.state, run.key, settings.checkpoint_seconds, run.signals)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            **trainer_arguments(settings, len(order) // settings.batch_size, settings.batch_size, run),
            # Rows are cut to length already, and trl takes no length together with padding_free.
            max_length=None if settings.packing else settings.max_length,
            padding_free=settings.packing,
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=rows.select(order),
        processing_class=tokenizer,
        callbacks=[preemption, Watch("sft step", run.progress)],
    )
    trainer.remove_callback(PrinterCallback)  # `Watch` reports instead
    run_trainer(trainer, preemption, run.report_resume)
    return by_interval(trainer.state.log_history, settings.log_every)


def trainer_arguments(settings: TrainingSettings, steps: int, batch: int, run: Run) -> dict[str, Any]:
    """The arguments that SFT and GRPO share: `batch` samples enter a step, whatever the number of processes."""
    world = distributed.world_size()
    micro = settings.micro_batch_size or max(1, batch // world)
    if batch % (micro * world):
        raise MergebenchError(
            f"{batch} samples a step do not divide into {world} processes x micro-batches of {micro}; "
            "change batch_size or micro_batch_size, or the number of tasks."
        )
    on_gpu = torch.cuda.is_available()
    if world == 1 and torch.cuda.device_count() > 1:
        raise MergebenchError(
            f"one process sees {torch.cuda.device_count()} GPUs and would multiply the batch over them; "
            "start one task for each (--tasks), or let it see one (CUDA_VISIBLE_DEVICES=0)."
        )
    if world > 1 and not on_gpu:
        # Accelerate would number the CPUs (`cpu:1`), and torch cannot load an optimizer's state onto a numbered one.
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    return {
        "output_dir": str(run.state),
        "max_steps": steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // (micro * world),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": math.ceil(settings.warmup * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": on_gpu,
        "use_cpu": not on_gpu,
        "bf16": settings.dtype == "bfloat16",
        "seed": run.seed,
        "save_strategy": "no",  # `Preemption` decides when
        "logging_steps": 1,  # `by_interval` sums them up, so that a checkpoint may fall anywhere
        "logging_nan_inf_filter": False,  # `Watch` stops at them
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
    }
