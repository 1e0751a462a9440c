"""GRPO with TRL's GRPOTrainer and a verifiable reward, on top of a supervised math specialist."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from mergebench.errors import MergebenchError
from mergebench.training import distributed, engine, lora
from mergebench.training.engine import Run, Trained
from mergebench.training.rewards import accuracy_reward, format_reward
from mergebench.training.settings import GrpoSettings
from mergebench.training.templates import render
from mergebench.training.watch import Watch


def train_grpo(
    init: Path, tokenizer: Any, rows: Sequence[dict[str, Any]], settings: GrpoSettings, run: Run
) -> tuple[list[dict[str, Any]], Trained]:
    """Improve the model of the folder `init` on ``{"prompt", "answer"}`` rows; returns the lines of the log and the trainer.

    The reward is ``accuracy + format_weight * format`` (`mergebench.training.rewards`). `tokenizer` must carry the
    template of the supervised stage (`use_template`).

    Raises:
        Preempted: a signal arrived; the state is saved and the same call continues from it.
        MergebenchError: no prompt is short enough, or the reward or loss diverged.
    """
    prompts = [row for row in rows if len(render(tokenizer, row["prompt"])) <= settings.max_prompt_length]
    if not prompts:
        raise MergebenchError(f"all {len(rows)} prompts have more than {settings.max_prompt_length} tokens; raise max_prompt_length.")
    if settings.loss_type == "bnpo" and distributed.world_size() > 1:
        raise MergebenchError(
            "grpo.loss_type: bnpo averages over the tokens of each process alone, so its result depends on how many there are; "
            "choose dapo, or train with one task."
        )
    if settings.vllm and (importlib.util.find_spec("vllm") is None or not torch.cuda.is_available()):
        raise MergebenchError(
            "grpo.vllm needs the package vllm and a GPU, and one is missing here; set it to false to generate with transformers."
        )
    completions = settings.prompts * settings.generations
    micro = settings.micro_batch_size or max(1, completions // distributed.world_size())
    config = GRPOConfig(
        **engine.arguments(settings, settings.steps, completions, micro, run),
        num_generations=settings.generations,
        max_completion_length=settings.max_completion_length,
        temperature=settings.temperature,
        beta=settings.beta,
        use_bias_correction_kl=False,  # the estimator of Shao et al.
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high,
        loss_type=settings.loss_type,
        scale_rewards=settings.scale_rewards,
        mask_truncated_completions=settings.mask_truncated_completions,
        reward_weights=[1.0, settings.format_weight],
        use_vllm=settings.vllm,
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=settings.vllm_gpu_memory,
        vllm_enable_sleep_mode=True,
        vllm_max_model_length=settings.max_prompt_length + settings.max_completion_length,
    )
    trainer = GRPOTrainer(
        model=engine.load(init, settings),
        reward_funcs=[accuracy_reward, format_reward],
        args=config,
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": row["prompt"]}], "answer": str(row["answer"])} for row in prompts]
        ),
        processing_class=tokenizer,
        peft_config=lora.peft_config(settings.lora),
    )
    return engine.fit(trainer, settings, run, Watch("grpo step", run.progress, log=run.live_log)), trainer
