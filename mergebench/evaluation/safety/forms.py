"""How a language model is asked to judge."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from mergebench.evaluation.safety.labels import Label, Request


@dataclass(frozen=True)
class Form:
    """A judge's prompt and how its answer reads.

    Attributes:
        name: of the judge.
        reads: which of ``request``, ``refusal`` and ``harm`` it labels.
        template: all fixed text, of which the digest is made.
        ask: the prompt of a request, without BOS.
        read: the label in what the model generates.
        max_tokens: what the longest label takes.
    """

    name: str
    reads: tuple[str, ...]
    template: str
    ask: Callable[[Request], str]
    read: Callable[[str], Label]
    max_tokens: int

    @property
    def sha256(self) -> str:
        """Digest of the fixed text."""
        return hashlib.sha256(self.template.encode()).hexdigest()
