"""Calibration samples on their way through a model that is being merged, for RegMean++ (Nguyen et al., 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mergebench.artifacts import Job, sha256_json
from mergebench.errors import MergebenchError
from mergebench.merging.models import Models
from mergebench.merging.statistics import gram
from mergebench.merging.statistics.calibration import calibration_digest, calibration_examples, check_pairing, subset
from mergebench.merging.statistics.decoder import StagedDecoder
from mergebench.merging.statistics.hidden import HiddenStates
from mergebench.merging.statistics.parts import Parts
from mergebench.merging.statistics.settings import Execution, RegmeanPlusPlusSettings
from mergebench.training import distributed
from mergebench.training.examples import Example
from mergebench.training.models import load_tokenizer
from mergebench.training.settings import parse
from mergebench.training.templates import use_template

FORMAT = 1  # of what is kept; another one does not go on from what an older version has left


def of_job(job: Job, models: Models) -> LayerInputs:
    """The calibration samples of a merge's or a search's specialists.

    Spec: ``calibration``: ``max_length`` (tokens), ``template``, ``settings`` (`settings.RegmeanPlusPlusSettings`), and ``rows``, at most
    so many of a training set's calibration rows; ``base``, ``domains``, ``seed``. Input: ``calibration``, the manifests of the domains'
    training sets, in any order; the rows lie beside them. Input: ``hits``, lists of rows to leave out, in folders named after the sets.

    Raises:
        MergebenchError: A domain has no rows or another's, or rows have changed since they were prepared.
    """
    spec = job.spec["calibration"]
    settings = parse(RegmeanPlusPlusSettings, spec.get("settings", {}), "calibration.settings")
    tokenizer = use_template(load_tokenizer(models.base.folder), spec.get("template", "chat"))
    manifests = {manifest.parent.name.removeprefix("train_"): manifest for manifest in job.paths("calibration")}
    hits = {path.parent.name: path for path in job.paths("hits")}
    samples, seed = {}, job.spec["seed"]
    for domain, specialist in models.specialists.items():
        if domain not in manifests:
            given = ", ".join(manifests) or "none"
            raise MergebenchError(f"The merge was given calibration rows of {given}; {domain} needs those of its own training set.")
        check_pairing({"base": job.spec["base"], "domain": domain}, specialist.folder, manifests[domain])
        calibration_digest(domain, manifests[domain])
        limits = spec.get("rows"), spec.get("max_length", 4096)
        rows = calibration_examples(tokenizer, manifests[domain], *limits, seed, hits.get(f"train_{domain}"))
        samples[domain] = subset(rows, settings.rows, seed)
    return LayerInputs(
        models.base.folder,
        samples,
        job.state / "propagation",
        dtype=settings.dtype,
        accumulate=settings.accumulate,
        device=distributed.device(),
        batch_rows=Execution.of(job.requested).batch_rows,
    )


class LayerInputs:
    """The hidden states of every domain's samples before the next stage: the embedding, each layer, and norm and head.

    One pass per stage and domain measures, another passes on: the whole model costs two passes for each specialist, whatever its depth.
    The weights and the Gram matrices of one layer are in memory; hidden states, and the directions of the stages that are finished, from
    which an interrupted merge goes on, are in files.

    Args:
        folder: Weights folder of a model with the specialists' architecture, laid out like Llama and Gemma 2; only `config.json` is read.
        samples: Domain -> its calibration rows.
        state: Folder of the files; it is left to the caller to remove.
        dtype: Of the forward passes: "float32" or "bfloat16".
        accumulate: Of the sums: "float64" or "float32".
        device: Where stages are run and merged.
        batch_rows: Rows per forward pass.

    Attributes:
        device: As given.

    Raises:
        MergebenchError: The model has another layout, or a domain has no samples.
    """

    def __init__(
        self,
        folder: Path,
        samples: Mapping[str, Sequence[Example]],
        state: Path,
        *,
        dtype: str = "float32",
        accumulate: str = "float64",
        device: torch.device | str = "cpu",
        batch_rows: int = 4,
    ) -> None:
        for domain, rows in samples.items():
            if not rows:
                raise MergebenchError(f"{domain} has no calibration samples; give it at least one.")
        self.device = str(device)
        self.decoder = StagedDecoder(folder, dtype=gram.DTYPES[dtype], device=device)
        self.state, self._accumulate = Path(state), gram.DTYPES[accumulate]
        self._rows = {domain: gram.longest_first(rows) for domain, rows in samples.items()}
        self._lengths = {domain: [len(row.input_ids) for row in rows] for domain, rows in self._rows.items()}
        self._batches = {
            domain: [range(start, min(start + batch_rows, len(rows))) for start in range(0, len(rows), batch_rows)]
            for domain, rows in self._rows.items()
        }
        content = {domain: [(row.id, row.input_ids) for row in rows] for domain, rows in self._rows.items()}
        self._key = sha256_json([FORMAT, content, dtype, accumulate])
        self._parts = Parts(self.state, self._key)
        self._kept = 0

    def facts(self) -> dict[str, dict[str, int]]:
        """Rows and tokens of each domain."""
        return {domain: {"rows": len(lengths), "tokens": sum(lengths)} for domain, lengths in self._lengths.items()}

    def stages(self, names: Sequence[str]) -> list[list[str]]:
        """These parameters, stage by stage: the embedding, each layer, norm and head."""
        return self.decoder.stages(names)

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Start at stage 0, or take up what was kept of a merge with this identity."""
        self._parts = Parts(self.state, sha256_json([self._key, dict(identity)]))
        self._parts.begin()
        last = self.decoder.layers + 1
        self._kept = next((stage for stage in range(last + 1) if not self._parts.has(_unit(stage))), last + 1)
        # The hidden states that the next stage reads; after the last layer, one that ends the model.
        needed = self._kept - 1
        if 0 <= needed < last and not all(self._states(needed, domain).path.is_file() for domain in self._rows):
            self._kept = 0

    def finished(self, stage: int) -> dict[str, torch.Tensor] | None:
        """The directions that were kept of a stage, mapped from a file; None if it is yet to be merged."""
        if stage >= self._kept:
            return None
        file = self._parts.tensors(_unit(stage))
        return {name: file.tensor(name) for name in file.tensors}

    def measure(self, stage: int, domain: str, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Gram matrices of the inputs of a stage's linear layers; layers with the same inputs have the same matrix."""
        linears = self.decoder.linears(list(weights))
        if stage == 0 or not linears:
            return {}
        last = stage == self.decoder.layers + 1
        with self.decoder.holding({name: weights[name] for name in weights if not last or name not in linears}):
            # Whatever is given to the head is given to all linear layers after the last norm.
            sources = dict.fromkeys(linears, linears[0]) if last else self.decoder.sources(stage, linears)
            widths = {name: weights[name].shape[1] for name in dict.fromkeys(sources.values())}
            sums = gram.zeros(widths, self._accumulate, self.decoder.device)
            states = self._states(stage - 1, domain)
            for batch in self._batches[domain]:
                lengths = [self._lengths[domain][row] for row in batch]
                hidden = states.read(batch, self.decoder.device)
                if last:
                    inputs = self.decoder.head_inputs(hidden)[gram.real_tokens(lengths, self.decoder.device)]
                    gram.add_products(sums[linears[0]], inputs)
                else:
                    gram.add_layer(self.decoder, stage, sums, hidden, lengths)
            states.close()
        tokens = sum(self._lengths[domain])
        matrices = {name: gram.mean(sums.pop(name), tokens) for name in widths}
        return {name: matrices[source] for name, source in sources.items()}

    def advance(self, stage: int, weights: Mapping[str, torch.Tensor], directions: Mapping[str, torch.Tensor]) -> None:
        """Give a stage its merged weights, pass all hidden states on, and keep the directions that were found."""
        if stage <= self.decoder.layers:
            with self.decoder.holding(weights):
                for domain in self._rows:
                    self._pass_on(stage, domain)
        self._parts.save(_unit(stage), {name: direction.cpu() for name, direction in directions.items()})
        for domain in self._rows if stage else ():
            self._states(stage - 1, domain).remove()

    def _pass_on(self, stage: int, domain: str) -> None:
        before, after = (self._states(stage - 1, domain) if stage else None), self._states(stage, domain)
        gram.pass_on(self.decoder, stage, self._rows[domain], self._batches[domain], before, after)

    def _states(self, stage: int, domain: str) -> HiddenStates:
        path = self._parts.folder / f"hidden-{stage}-{domain}.bin"
        return HiddenStates(path, self._lengths[domain], self.decoder.width, self.decoder.dtype)


def _unit(stage: int) -> str:
    return f"stage-{stage}"
