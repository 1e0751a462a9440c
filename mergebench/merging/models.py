"""The inputs of a merge: a base, its specialists, and what was measured on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mergebench.checkpoints.audit import Finding, Vocabulary, require_mergeable
from mergebench.checkpoints.reader import Checkpoint, is_embedding, weight_files
from mergebench.checkpoints.vocabulary import Rows, merged_rows
from mergebench.errors import MergebenchError
from mergebench.merging.statistics.store import Statistics
from mergebench.vectors.spectrum import Spectrum

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Models:
    """A base and its specialists, audited.

    Attributes:
        base: The base.
        specialists: Domain -> specialist, sorted by domain.
        spectra: Domain -> spectrum of the task vector; one that is absent is measured when a method asks for it.
        statistics: (kind, domain) -> statistics of the specialist.
        findings: What the audit noted, by domain.
        rows: The vocabulary of the merged model.
        propagation: Provides Gram matrices through layers that have been merged already, for methods of scope "layer".
    """

    base: Checkpoint
    specialists: dict[str, Checkpoint]
    spectra: dict[str, Spectrum] = field(default_factory=dict)
    statistics: dict[tuple[str, str], Statistics] = field(default_factory=dict)
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    rows: Rows = field(default_factory=Rows)
    propagation: Any = None

    @classmethod
    def open(
        cls,
        base: Path,
        specialists: Mapping[str, Path],
        *,
        spectra: Mapping[str, Path] | None = None,
        statistics: Iterable[Path] = (),
        vocabulary: Vocabulary = "refuse",
    ) -> Self:
        """Open and audit the inputs of a merge; headers only are read.

        Args:
            base: The base's folder.
            specialists: Domain -> folder, in any order.
            spectra: Domain -> `spectrum.npz`.
            statistics: `statistics.safetensors` files; each says itself which domain and kind it is of.
            vocabulary: What to do with embedding rows that the base lacks, see `checkpoints.audit`.

        Raises:
            MergebenchError: There is no specialist, a file is broken, or the models do not belong together.
        """
        if not specialists:
            raise MergebenchError("A merge needs at least one specialist; none was given.")
        origin = Checkpoint(base)
        opened = {domain: Checkpoint(specialists[domain]) for domain in sorted(specialists)}
        named = {f"specialist_{domain}": model for domain, model in opened.items()}
        findings = require_mergeable(origin, named, vocabulary=vocabulary)
        stores = [Statistics(path) for path in statistics]
        return cls(
            base=origin,
            specialists=opened,
            spectra={domain: Spectrum.load(path) for domain, path in (spectra or {}).items()},
            statistics={(store.facts["kind"], store.facts["domain"]): store for store in stores},
            findings=dict(zip(opened, findings.values(), strict=True)),
            rows=merged_rows(origin, opened, vocabulary),
        )

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains, sorted."""
        return tuple(self.specialists)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of the part of a tensor to which methods are applied: the base's, or fewer rows if the vocabulary is cut."""
        shape = self.base.tensors[name].shape
        return min(shape, self.rows.shapes.get(name, shape))

    def size(self, name: str) -> int:
        """Entries of that part; it is the first of the flattened tensor."""
        return math.prod(self.shape(name))

    def specialist(self, row: int) -> Checkpoint:
        """The specialist of domains[row]."""
        return self.specialists[self.domains[row]]

    def identity(self) -> dict[str, list[tuple[str, int, int]]]:
        """The input files, by model: their paths, sizes and times of modification in ns. What was begun with others is not continued."""
        return {
            name: [(str(path.resolve()), (found := path.stat()).st_size, found.st_mtime_ns) for path in weight_files(model.folder)]
            for name, model in [("base", self.base), *self.specialists.items()]
        }

    def require(self, kinds: Iterable[str]) -> None:
        """Check that each specialist has these statistics.

        Raises:
            MergebenchError: One is absent.
        """
        for kind in kinds:
            for domain in self.domains:
                if (kind, domain) not in self.statistics:
                    raise MergebenchError(f"The {kind} statistic of {domain} was not given; measure it and pass it on.")

    def statistic(self, kind: str, domain: str, name: str) -> Any:
        """A statistic of one parameter; None where it was not measured.

        It was measured on the specialist, whose embedding may have rows that the base lacks: they are dropped like the weights'.
        """
        store = self.statistics.get((kind, domain))
        found = store.get(name) if store else None
        if found is None or kind == "gram" or not is_embedding(name):
            return found
        return found[: self.base.tensors[name].shape[0]]

    def stored_name(self, kind: str, domain: str, name: str) -> str | None:
        """The name under which a statistic is stored: the same for parameters that share it; None where it was not measured."""
        store = self.statistics.get((kind, domain))
        return store.stored_name(name) if store else None

    def statistic_values(self, kind: str, domain: str, name: str, start: int, stop: int) -> np.ndarray | None:
        """Entries of a flattened statistic with the parameter's shape, as stored; None where it was not measured."""
        store = self.statistics.get((kind, domain))
        return store.values(name, start, stop) if store else None
