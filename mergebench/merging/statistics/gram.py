"""Gram matrices of the inputs of every linear layer, for RegMean (Jin et al., 2023).

For a layer ``y = x W^T`` the statistic is ``X^T X / N``, where the N rows of X are the layer's inputs at all real
(not padded) tokens of the calibration rows. One pass serves every reduction factor.

The rows pass the model layer by layer: the weights and the sums of one layer are in memory, and the hidden states of all rows are in a
file of the job's state. A layer is the unit that an interrupted job, which also keeps the sums of the layer in progress, need not do again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from mergebench.merging.statistics.decoder import StagedDecoder
from mergebench.merging.statistics.hidden import HiddenStates
from mergebench.merging.statistics.sums import lanes, sum_rows
from mergebench.merging.statistics.task import Measured, Task
from mergebench.training import distributed
from mergebench.training.examples import Example

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
# Rows of X in one float32 product: its rounding error grows with them, and products are added in the dtype of the sums.
PRODUCT_ROWS = 1024
# Columns of X in one product: only products on and above the diagonal are formed.
PRODUCT_COLUMNS = 2048

Matrices = dict[str, torch.Tensor]


def measure(task: Task) -> Measured:
    """The Gram matrices of a specialist on its calibration rows, a part per layer, and one for an output head of its own."""
    walk = _Walk(task)
    units = [unit for unit in map(walk.unit, range(walk.decoder.layers + 2)) if unit]
    walk.run()
    aliases: dict[str, str] = {}
    if task.main:
        for unit in units:
            aliases |= {name: first for name, first in task.parts.facts(unit)["sources"].items() if name != first}
    return Measured(units, {"tokens": walk.tokens}, aliases)


def longest_first(examples: Sequence[Example]) -> list[Example]:
    """The rows by falling length, so that neighbours need little padding and lanes have about as many tokens."""
    return sorted(examples, key=lambda example: (-len(example.input_ids), example.id))


def zeros(widths: dict[str, int], dtype: torch.dtype, device: torch.device) -> Matrices:
    """Sums of the matrices of these widths, before the first product."""
    return {name: torch.zeros(width, width, dtype=dtype, device=device) for name, width in widths.items()}


def add_products(total: torch.Tensor, inputs: torch.Tensor) -> None:
    """Add X^T X to `total` (d, d), on and above its diagonal blocks; X is `inputs` (N, d), multiplied in at least float32."""
    rows = inputs.float() if inputs.dtype in (torch.bfloat16, torch.float16) else inputs
    for part in rows.split(PRODUCT_ROWS):
        for start in range(0, len(total), PRODUCT_COLUMNS):
            total[start : start + PRODUCT_COLUMNS, start:] += part[:, start : start + PRODUCT_COLUMNS].T @ part[:, start:]


def mean(total: torch.Tensor, tokens: int) -> torch.Tensor:
    """The Gram matrix, float32 (d, d) and exactly symmetric, of sums that `add_products` has made; these are overwritten."""
    total.div_(tokens)
    result = total.float()
    for start in range(0, len(result), PRODUCT_COLUMNS):
        stop = start + PRODUCT_COLUMNS
        result[stop:, start:stop] = result[start:stop, stop:].T
        block = result[start:stop, start:stop]
        block.copy_(block.triu() + block.triu(1).T)
    return result


def real_tokens(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    """Which places of a batch padded on the right hold tokens: bool (rows, longest)."""
    counts = torch.tensor(lengths, device=device)
    return torch.arange(max(lengths), device=device) < counts[:, None]


def add_layer(decoder: StagedDecoder, stage: int, sums: Matrices, hidden: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Pass a batch through a layer, which the decoder holds, and add the products of its linear layers' inputs.

    Args:
        decoder: The model.
        stage: The layer's stage.
        sums: Name of each linear layer whose inputs are wanted -> its sums.
        hidden: The hidden states before the layer, padded on the right.
        lengths: Tokens of each row.

    Returns:
        The hidden states after the layer.
    """
    real = real_tokens(lengths, decoder.device)
    with decoder.watching(list(sums), lambda name, inputs: add_products(sums[name], inputs[real])):
        return decoder.layer(stage, hidden)


def token_ids(rows: Sequence[Example]) -> torch.Tensor:
    """Token ids of a batch, int64 (rows, longest); padding is id 0, which no real token sees."""
    longest = max(len(row.input_ids) for row in rows)
    return torch.tensor([row.input_ids + [0] * (longest - len(row.input_ids)) for row in rows])


def pass_on(
    decoder: StagedDecoder,
    stage: int,
    rows: Sequence[Example],
    batches: Iterable[Sequence[int]],
    before: HiddenStates | None,
    after: HiddenStates,
) -> None:
    """Pass rows through a stage whose weights the decoder holds; both files of hidden states are closed.

    Args:
        rows: All rows.
        batches: Which of them go together.
        before: Their states before the stage; None before the embedding.
        after: Gets their states after it.
    """
    for batch in batches:
        if before is None:
            hidden = decoder.embed(token_ids([rows[row] for row in batch]))
        else:
            hidden = decoder.layer(stage, before.read(batch, decoder.device))
        after.write(batch, hidden)
    after.flush()
    after.close()
    if before is not None:
        before.close()


class _Walk:
    """One task's rows on their way through the specialist."""

    def __init__(self, task: Task) -> None:
        self.task, settings = task, task.settings
        self.rows = longest_first(task.examples)
        self.lengths = [len(row.input_ids) for row in self.rows]
        self.tokens = sum(self.lengths)
        self.sums_dtype = DTYPES[settings.accumulate]
        self.decoder = StagedDecoder(task.specialist.folder, dtype=DTYPES[settings.dtype], device=task.device)
        self.names = self.decoder.stages([name for name in task.specialist.names if task.specialist.tensors[name].floating])
        self.last = self.decoder.layers + 1
        self.task.memory("weights of a layer", max(map(self._size, self.names[1:-1])))
        self.task.memory("hidden states on disk", 2 * self._states(0).bytes)

    def unit(self, stage: int) -> str | None:
        """The name of a stage's part; None for one without linear layers: the embedding, and what follows the layers of a tied model."""
        if stage == 0 or not self.decoder.linears(self.names[stage]):
            return None
        return "head" if stage == self.last else f"layers.{stage - 1}"

    def run(self) -> None:
        """Measure what is not finished, from the last stage whose hidden states are there."""
        finished = 0
        while finished < self.last and (unit := self.unit(finished + 1)) and self.task.finished(unit):
            finished += 1
        if finished >= self.decoder.layers and (finished == self.last or not self.unit(self.last)):
            return
        begin = finished + 1 if finished and self._there(finished) else 0
        for stage in range(begin, self.last + 1):
            unit = self.unit(stage)
            if stage > finished and unit is not None:
                with self.task.timing(unit):
                    self._measure(stage, unit)
            elif stage <= self.decoder.layers:
                self._pass_on(stage)
            self._advanced(stage)
            self.task.check_preempted()

    def _measure(self, stage: int, unit: str) -> None:
        """Measure a layer or the head, and pass the hidden states on."""
        task, decoder = self.task, self.decoder
        states, after = self._states(stage - 1), self._states(stage)
        linears = decoder.linears(self.names[stage])
        if task.main and self._wanted(stage) and not after.path.exists():
            task.parts.drop(unit)  # sums of rows whose hidden states have been lost
        with decoder.holding(self._read(stage)):
            sources = {name: name for name in linears} if stage == self.last else decoder.sources(stage, linears)
            widths = {name: task.specialist.tensors[name].shape[1] for name in dict.fromkeys(sources.values())}
            task.memory("sums of a layer", sum(width * width for width in widths.values()) * self.sums_dtype.itemsize)

            def add(sums: Matrices, batch: Sequence[int]) -> None:
                lengths = [self.lengths[row] for row in batch]
                hidden = states.read(batch, task.device)
                if stage == self.last:
                    inputs = decoder.head_inputs(hidden)[real_tokens(lengths, task.device)]
                    for total in sums.values():
                        add_products(total, inputs)
                    return
                out = add_layer(decoder, stage, sums, hidden, lengths)
                if self._wanted(stage):
                    after.write(batch, out)

            totals = sum_rows(
                task,
                unit,
                len(self.rows),
                lambda: zeros(widths, self.sums_dtype, task.device),
                add,
                batch_rows=task.execution.batch_rows,
                what=f"rows in {unit}",
                flush=after.flush,
            )
        after.flush()
        distributed.wait_for_all()
        if task.main:
            task.parts.save(unit, {name: mean(totals.pop(name), self.tokens) for name in list(totals)}, {"sources": sources})
        states.close()
        after.close()

    def _pass_on(self, stage: int) -> None:
        """Pass the hidden states of this process's rows through a stage that need not be measured."""
        before, after = (self._states(stage - 1) if stage else None), self._states(stage)
        with self.decoder.holding(self._read(stage)):
            pass_on(self.decoder, stage, self.rows, self._own_batches(), before, after)

    def _own_batches(self) -> list[list[int]]:
        """This process's rows as `sum_rows` deals and batches them."""
        size, world, rank = self.task.execution.batch_rows, distributed.world_size(), distributed.rank()
        own = [lane for number, lane in enumerate(lanes(len(self.rows))) if number % world == rank]
        return [lane[start : start + size] for lane in own for start in range(0, len(lane), size)]

    def _advanced(self, stage: int) -> None:
        """All processes have written the hidden states after a stage; those before it are no longer needed."""
        distributed.wait_for_all()
        if self.task.main:
            for earlier in range(stage):
                self._states(earlier).remove()

    def _wanted(self, stage: int) -> bool:
        """Whether a later stage reads the hidden states after this layer."""
        return stage < self.decoder.layers or self.unit(self.last) is not None

    def _there(self, stage: int) -> bool:
        found = self._states(stage).path.is_file() if self.task.main else False
        return distributed.as_main_has_it("yes" if found else None) is not None

    def _states(self, stage: int) -> HiddenStates:
        path = self.task.parts.folder / f"hidden-{stage}.bin"
        return HiddenStates(path, self.lengths, self.decoder.width, self.decoder.dtype)

    def _read(self, stage: int) -> dict[str, torch.Tensor]:
        """The weights of a stage, mapped from the file; without the head's, which is not run."""
        unread = self.decoder.linears(self.names[self.last])
        return {name: self.task.specialist.tensor(name) for name in self.names[stage] if name not in unread}

    def _size(self, names: Sequence[str]) -> int:
        return sum(self.task.specialist.tensors[name].size for name in names) * self.decoder.dtype.itemsize
