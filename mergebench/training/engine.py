"""What SFT and GRPO share: how TRL's trainers are set up, run, and give their weights."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PrinterCallback

from mergebench.errors import MergebenchError
from mergebench.training import distributed, lora, sharding
from mergebench.training.models import load_model
from mergebench.training.preemption import Preemption, Signals, run_trainer
from mergebench.training.settings import TrainingSettings
from mergebench.training.watch import Progress, Watch, by_interval


@dataclass(frozen=True)
class Run:
    """Where a training run keeps its checkpoints, who it is, whom it tells and who can stop it."""

    state: Path
    key: str
    seed: int
    progress: Progress
    signals: Signals

    @property
    def live_log(self) -> Path:
        """Losses while training; the log that is published is made from a checkpoint's at the end."""
        return self.state / "losses.jsonl"

    def report_resume(self, checkpoint: Path) -> None:
        self.progress(0, 0, f"resuming from {checkpoint.name}")


class Trained(Protocol):
    """A trainer that has come to the end."""

    model: Any


def load(init: Path, settings: TrainingSettings) -> Any:
    """The model that a run starts from; the trainer's arguments have been made before.

    Weights that are updated are float32, here or, under ZeRO, in the optimizer; those that adapters leave alone, and ZeRO's
    working copies, have the dtype of the arithmetic.
    """
    half = settings.dtype == "bfloat16"
    kept_elsewhere = settings.sharding != "none" or settings.lora is not None
    return load_model(init, dtype=torch.bfloat16 if half and kept_elsewhere else torch.float32, half_precision=half)


def arguments(settings: TrainingSettings, steps: int, batch: int, micro: int, run: Run) -> dict[str, Any]:
    """The arguments that SFT and GRPO share.

    Args:
        batch: rows (SFT) or completions (GRPO) that enter a step, over all processes.
        micro: of them, in one forward pass of one process.

    Raises:
        MergebenchError: the batch does not divide into micro-batches, or this process sees several GPUs.
    """
    world = distributed.world_size()
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
    sharding.start(settings)
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
        "gradient_checkpointing": settings.activation_checkpointing != "none",
        "gradient_checkpointing_kwargs": {"selective": True} if settings.activation_checkpointing == "selective" else None,
        "use_cpu": not on_gpu,
        "bf16": settings.dtype == "bfloat16",
        "tf32": True if on_gpu and torch.cuda.get_device_capability()[0] >= 8 else None,
        "seed": run.seed,
        "save_strategy": "no",  # `Preemption` decides when
        "logging_steps": 1,  # `by_interval` sums them up, so that a checkpoint may fall anywhere
        "logging_nan_inf_filter": False,  # `Watch` stops at them
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,
        "deepspeed": sharding.configuration(settings),
    }


def fit(trainer: Any, settings: TrainingSettings, run: Run, watch: Watch) -> list[dict[str, Any]]:
    """Train to the end, from the newest complete checkpoint if there is one; returns the lines of the log.

    Raises:
        Preempted: a signal arrived; the state is saved and the same call continues from it.
        MergebenchError: the loss diverged, or the checkpoint wants another number of processes.
    """
    preemption = Preemption(run.state, run.key, settings.checkpoint_seconds, run.signals, fixed=settings.sharding != "none")
    trainer.add_callback(preemption)
    trainer.add_callback(watch)
    trainer.remove_callback(PrinterCallback)  # `Watch` reports instead
    run_trainer(trainer, preemption, run.report_resume)
    return by_interval(trainer.state.log_history, settings.log_every)


def weights(trainer: Trained, settings: TrainingSettings) -> Mapping[str, torch.Tensor]:
    """The trained weights under the names of the base, whole in the main process; all processes must ask."""
    sharded = settings.sharding != "none"
    state = sharding.gathered(trainer.model) if sharded else trainer.model.state_dict()
    return lora.merged(state, settings.lora) if settings.lora else state
