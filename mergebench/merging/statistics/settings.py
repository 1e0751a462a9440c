"""Settings of the calibration statistics, by kind; the names are those of a statistics spec."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int | None = Field(None, ge=1)  # calibration rows used; None: all


class FisherSettings(_Settings):
    """Diagonal Fisher information."""

    labels: Literal["sampled", "empirical"] = "sampled"


class GramSettings(_Settings):
    """Gram matrices of linear layers' inputs."""

    batch_size: int = Field(8, ge=1)
    accumulate: Literal["float32", "float64"] = "float64"


class MaskSettings(_Settings):
    """Localize-and-Stitch masks."""

    steps: int = Field(300, ge=1)
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(30.0, gt=0)  # relative to the first step's largest gradient
    l1: float = Field(0.0, ge=0)
    density: float = Field(0.1, gt=0, le=1)  # share of elements in the mask at the start
    bias: float = Field(5.0, gt=0)  # magnitude of the logits at the start (the paper's code: 5)


KINDS: dict[str, type[_Settings]] = {"fisher": FisherSettings, "gram": GramSettings, "mask": MaskSettings}
