"""Settings of SFT and GRPO, checked where they are used; the names are those of a training spec."""

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mergebench.errors import MergebenchError
from mergebench.training.mixture import Mixture


class LoraSettings(BaseModel):
    """Low-rank adapters (Hu et al., 2021): W + alpha / rank * B A, with W frozen; exported merged into W."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"  # names of modules; never the output layer


class TrainingSettings(BaseModel):
    """What SFT and GRPO share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.0, ge=0, lt=1)  # share of the steps
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    # Rows of one forward pass: samples (completions, for GRPO), by default all of a process; packed rows, by default one.
    micro_batch_size: int | None = Field(None, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the arithmetic; the weights that are updated are float32
    # What the processes share out (DeepSpeed): optimizer states and gradients (zero2), and the weights as well (zero3).
    sharding: Literal["none", "zero2", "zero3"] = "none"
    offload: Literal["none", "optimizer"] = "none"  # where the sharded optimizer states are: beside the model, or in the host's memory
    # What is computed again in the backward pass instead of kept: everything in a layer but its attention, or all of it.
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    lora: LoraSettings | None = None
    # Nats that the mean loss of `watch.WINDOW` steps may lie above the lowest such mean before it; null: no limit.
    divergence: float | None = Field(2.0, gt=0)
    template: str = "chat"
    log_every: int = Field(10, ge=1)  # steps
    checkpoint_seconds: float = Field(1800, gt=0)

    @model_validator(mode="after")
    def _only_what_is_sharded_is_offloaded(self) -> "TrainingSettings":
        if self.offload != "none" and self.sharding == "none":
            raise ValueError("offload needs sharding: zero2 or zero3")
        return self


class SftSettings(TrainingSettings):
    """Supervised fine-tuning (paper, appendix C.1)."""

    steps: int | None = Field(None, ge=1)  # overrides `epochs`
    epochs: float = Field(2, gt=0)
    batch_size: int = Field(128, ge=1)  # of what `batch_unit` counts, in one optimizer step over all processes
    # What the paper's "batch size 128" counts when rows are packed: samples, or rows of `max_length` filled with samples.
    batch_unit: Literal["samples", "packs"] = "samples"
    max_length: int = Field(4096, ge=8)  # tokens
    packing: bool = False  # lay samples end to end in rows of at most `max_length` tokens; they do not see each other
    mixture: Mixture = "proportional"
    group_by_length: bool = False

    @model_validator(mode="after")
    def _packs_are_packed(self) -> "SftSettings":
        if self.batch_unit == "packs" and not self.packing:
            raise ValueError("batch_unit: packs needs packing: true")
        return self


class GrpoSettings(TrainingSettings):
    """Group Relative Policy Optimization (Shao et al., 2024), as the paper applies it to math (section 3.3)."""

    steps: int = Field(500, ge=1)
    prompts: int = Field(64, ge=1)  # per step
    generations: int = Field(8, ge=2)  # completions of a prompt
    max_prompt_length: int = Field(512, ge=8)  # tokens; longer prompts are dropped
    max_completion_length: int = Field(1024, ge=1)
    temperature: float = Field(1.0, gt=0)
    beta: float = Field(0.0, ge=0)  # weight of the KL term (0.04 in Shao et al.); above 0 a reference model is held in memory
    epsilon: float = Field(0.2, gt=0)
    epsilon_high: float = Field(0.28, gt=0)
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    mask_truncated_completions: bool = True
    format_weight: float = Field(0.1, ge=0)
    vllm: bool = False  # generate with vLLM, on the GPUs that train; it sleeps while they do
    vllm_gpu_memory: float = Field(0.35, gt=0, lt=1)  # share of a GPU's memory that vLLM may use


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
