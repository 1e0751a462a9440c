"""What a deferred benchmark asked, for those who score the answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mergebench.evaluation.settings import BenchmarkSetting


@dataclass(frozen=True)
class Questions:
    """The rows of a deferred benchmark and what its task says of their scoring.

    Attributes:
        docs: the rows that were asked, in order.
        metadata: of the task.
    """

    setting: BenchmarkSetting
    docs: Sequence[dict[str, Any]]
    metadata: Mapping[str, Any]

    @property
    def rule(self) -> str:
        """What is wanted of an answer to a safety prompt: harm, compliance or appropriate."""
        return str(self.metadata["judge_rule"])
