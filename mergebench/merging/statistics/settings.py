"""Settings of the calibration statistics, by kind; the names are those of a statistics spec."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from mergebench.training.settings import parse


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int | None = Field(None, ge=1)  # calibration rows used; None: all


class Execution(BaseModel):
    """How a statistic is computed. Nothing here changes it beyond rounding, so none of it is part of a spec."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_rows: int = Field(4, ge=1)  # rows of one forward pass, where a kind computes several at once
    group_mb: int = Field(0, ge=0)  # 10^6 bytes of sums that are on the device at once; 0: half of what is free
    save_seconds: int = Field(600, ge=0)  # between two savings of what is in progress

    @classmethod
    def of(cls, requested: Mapping[str, int]) -> Self:
        """What a job asked for, by these names (`--requested`); the rest by default.

        Raises:
            MergebenchError: a number is out of range.
        """
        return parse(cls, {name: requested[name] for name in cls.model_fields if name in requested}, "--requested")


class FisherSettings(_Settings):
    """Diagonal Fisher information."""

    labels: Literal["sampled", "topk", "empirical"] = "sampled"
    k: int = Field(5, ge=1)  # labels per position, for `topk`
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the model; squares and sums are float32


class GramSettings(_Settings):
    """Gram matrices of linear layers' inputs."""

    dtype: Literal["float32", "bfloat16"] = "float32"  # of the forward pass; products are float32 at least
    accumulate: Literal["float32", "float64"] = "float64"  # of the sums


class MaskSettings(_Settings):
    """Localize-and-Stitch masks."""

    steps: int = Field(300, ge=1)
    batch_size: int = Field(8, ge=1)
    micro_batch_size: int | None = Field(1, ge=1)  # rows of one forward pass; None: the whole batch, divided among the processes
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the logits
    model_dtype: Literal["checkpoint", "float32"] = "checkpoint"  # of the masked model
    learning_rate: float = Field(30.0, gt=0)  # relative to the first step's largest gradient
    l1: float = Field(0.0, ge=0)
    density: float = Field(0.1, gt=0, le=1)  # share of elements in the mask at the start
    bias: float = Field(5.0, gt=0)  # magnitude of the logits at the start (the paper's code: 5)


class RegmeanPlusPlusSettings(_Settings):
    """The samples that RegMean++ passes through the layers that it has merged. No kind of statistic: the merge itself reads them."""

    rows: int | None = Field(256, ge=1)  # calibration rows of each domain (the paper's number); None: all
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the forward passes
    accumulate: Literal["float32", "float64"] = "float64"  # of the sums


KINDS: dict[str, type[_Settings]] = {"fisher": FisherSettings, "gram": GramSettings, "mask": MaskSettings}
