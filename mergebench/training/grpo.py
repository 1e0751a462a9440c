"""GRPO with TRL's GRPOTrainer and a verifiable reward, on top of a supervised math specialist."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from mergebench.errors import MergebenchError
from mergebench.training import distributed
from mergebench.training.preemption import Preemption, run_trainer
from mergebench.training.rewards import accuracy_reward, format_reward
from mergebench.training.settings import GrpoSettings
from mergebench.training.sft import Run, trainer_arguments
from mergebench.training.templates import render
from mergebench.training.watch import Watch, by_interval


def train_grpo(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], settings: GrpoSettings, run: Run) -> list[dict[str, Any]]:
    """Improve `model` in place on ``{"prompt", "answer"}`` rows; returns the lines of its log.

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
    completions = settings.prompts * settings.generations
    preemption = Preemption(run.state, run.key, settings.checkpoint_seconds, run.signals)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[accuracy_reward, format_reward],
        args=GRPOConfig(
            **trainer_arguments(settings, settings.steps, completions, run),
            num_generations=settings.generations,
            max_completion_length=settings.max_completion_length,
            temperature=settings.temperature,
            beta=settings.beta,
            epsilon=settings.epsilon,
            epsilon_high=settings.epsilon_high,
            loss_type=settings.loss_type,
            scale_rewards=settings.scale_rewards,
            mask_truncated_completions=settings.mask_truncated_completions,
            reward_weights=[1.0, settings.format_weight],
            use_vllm=settings.vllm,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": row["prompt"]}], "answer": str(row["answer"])} for row in prompts]
        ),
        processing_class=tokenizer,
        callbacks=[preemption, Watch("grpo step", run.progress)],
    )
    trainer.remove_callback(PrinterCallback)  # `Watch` reports instead
    run_trainer(trainer, preemption, run.report_resume)
    return by_interval(trainer.state.log_history, settings.log_every)
