"""Settings of SFT and GRPO, checked where they are used; the names are those of a training spec."""

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mergebench.errors import MergebenchError

Mixture = Literal["proportional", "balanced"]


class TrainingSettings(BaseModel):
    """What SFT and GRPO share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.0, ge=0, lt=1)  # share of the steps
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    # Samples (completions, for GRPO) of one forward pass; by default all of a process.
    micro_batch_size: int | None = Field(None, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the arithmetic; the weights are kept in float32
    template: str = "chat"
    log_every: int = Field(10, ge=1)  # steps
    checkpoint_seconds: float = Field(1800, gt=0)


class SftSettings(TrainingSettings):
    """Supervised fine-tuning (paper, appendix C.1)."""

    steps: int | None = Field(None, ge=1)  # overrides `epochs`
    epochs: float = Field(2, gt=0)
    batch_size: int = Field(128, ge=1)  # samples that enter one optimizer step, over all processes
    max_length: int = Field(4096, ge=8)  # tokens
    packing: bool = False  # flatten a micro-batch into one row without padding; rows do not see each other
    mixture: Mixture = "proportional"
    group_by_length: bool = False


class GrpoSettings(TrainingSettings):
    """Group Relative Policy Optimization (Shao et al., 2024), as the paper applies it to math (section 3.3)."""

    steps: int = Field(500, ge=1)
    prompts: int = Field(64, ge=1)  # per step
    generations: int = Field(8, ge=2)  # completions of a prompt
    max_prompt_length: int = Field(512, ge=8)  # tokens; longer prompts are dropped
    max_completion_length: int = Field(1024, ge=1)
    temperature: float = Field(1.0, gt=0)
    beta: float = Field(0.0, ge=0)  # weight of the KL term; above 0 a reference model is held in memory
    epsilon: float = Field(0.2, gt=0)
    epsilon_high: float = Field(0.28, gt=0)
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    mask_truncated_completions: bool = True
    format_weight: float = Field(0.1, ge=0)
    vllm: bool = False


S = TypeVar("S", bound=BaseModel)


def parse(model: type[S], values: dict[str, Any], where: str) -> S:
    """Build settings from a spec; the first problem becomes one sentence that names the key and the value."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([where, *map(str, first["loc"])])
        hint = f"; allowed keys: {', '.join(model.model_fields)}" if first["type"] == "extra_forbidden" else ""
        value = "" if first["type"] == "missing" else f" (found {first['input']!r})"
        raise MergebenchError(f"{key}: {first['msg']}{value}{hint}.") from None
