"""Trained Localize-and-Stitch masks (He et al., 2024): where a specialist's skill lives in its task vector.

A mask has one logit S per entry of the task vector tau. Training minimises

    loss(theta_0 + sigmoid(S) * tau) + l1 * ||sigmoid(S)||_1

by gradient descent on S, with the exact gradient d/dS = (d loss / d theta * tau + l1) * sigmoid'(S). The rounded
mask is S > 0. The base theta_0 is read afresh in every step and never written. `masked` has the model and the steps.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from mergebench.checkpoints.audit import require_mergeable
from mergebench.errors import MergebenchError
from mergebench.merging.scope import ALL, names_in_scope
from mergebench.merging.statistics.masked import MaskedModel, TaskVector, Tensors
from mergebench.merging.statistics.objective import recompute_layers
from mergebench.merging.statistics.settings import MaskSettings
from mergebench.merging.statistics.task import Measured, Task
from mergebench.training import distributed
from mergebench.training.examples import Example
from mergebench.vectors.measure import measure as measure_spectra
from mergebench.vectors.spectrum import Cut

STATE = "logits"  # the name of the logits in progress
GROUP = 1 << 28  # entries of the masks that are rounded and written together
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ACTIVATIONS = 0.25  # share of a GPU's memory that is left to activations


def measure(task: Task) -> Measured:
    """Train the mask of a specialist, and keep it, rounded, in the task's parts."""
    require_mergeable(task.base, {task.specialist.folder.parent.name: task.specialist}, vocabulary="base")
    vector = TaskVector(task.base, task.specialist, names_in_scope(task.base, task.job.spec.get("scope", ALL)))
    units = {f"mask.{number}": group for number, group in enumerate(groups(vector))}
    finished = [task.finished(unit) for unit in units]  # all of them, for all processes must ask the same
    if not all(finished):
        _train(task, vector, units)
    kept = [task.parts.facts(unit) for unit in units] if task.main else []
    entries = vector.entries
    facts: dict[str, Any] = {"entries": entries, "tokens": sum(row.response_tokens for row in task.examples)}
    if task.main:
        facts |= {name: round(sum(each[name] for each in kept) / entries, 6) for name in ("kept", "changed")}
        facts |= {name: round(kept[0][name], 6) for name in ("first_loss", "last_loss")}
    return Measured(list(units), facts)


def groups(vector: TaskVector) -> list[list[str]]:
    """The names of the task vector in runs of at most `GROUP` entries, or of one larger tensor."""
    found: list[list[str]] = []
    room = 0
    for name in vector.names:
        size = vector.base.size(name)
        if size > room:
            found.append([])
            room = GROUP
        found[-1].append(name)
        room -= size
    return found


def threshold(vector: TaskVector, density: float, threads: int = 1) -> Cut:
    """Which magnitudes are among the `density` share of largest ones: exactly so many entries, or all that are not zero.

    The magnitudes are counted, not sorted: two walks over the files at most.
    """
    spectrum = measure_spectra(vector.base, [vector.specialist], vector.names, densities=[[density]], threads=threads)[0]
    return spectrum.cut(round(density * spectrum.total), "exact")


def initial_masks(vector: TaskVector, cut: Cut) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, which entries the threshold keeps: bool, flattened); ties go to the first in the order of names and places."""
    spare = cut.spare
    host = torch.device("cpu")
    for name in vector.names:
        kept = torch.zeros(vector.base.size(name), dtype=torch.bool)
        for place, _, tau in vector.pieces(name, host, torch.float32):
            bits = tau.abs().view(torch.int32)
            kept[place] = bits >= cut.limit
            if spare:
                equal = (bits == cut.limit - 1).nonzero().flatten()[:spare]
                kept[place][equal] = True
                spare -= len(equal)
        yield name, kept


def initial_logits(vector: TaskVector, cut: Cut, bias: float, dtype: torch.dtype, device: torch.device) -> Tensors:
    """Logits ``+bias`` where the threshold keeps an entry, ``-bias`` elsewhere."""
    found = {}
    for name, kept in initial_masks(vector, cut):
        logits = torch.full(vector.base.tensors[name].shape, -bias, dtype=dtype, device=device)
        logits.view(-1)[kept.to(device)] = bias
        found[name] = logits
    return found


def batches(examples: Sequence[Example], size: int, seed: int) -> Iterator[list[Example]]:
    """Batches without end: every example once in a random order, then again in another."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    while True:
        while len(order) < size:
            order += rng.permutation(len(examples)).tolist()
        chosen, order = order[:size], order[size:]
        yield [examples[i] for i in chosen]


def pieces_of(settings: MaskSettings) -> int:
    """Into how many pieces a step's rows are cut."""
    return -(-settings.batch_size // settings.micro_batch_size) if settings.micro_batch_size else distributed.world_size()


def _train(task: Task, vector: TaskVector, units: dict[str, list[str]]) -> None:
    """Move the logits from the start, or from where an earlier attempt was, to the end, and keep the rounded mask."""
    settings: MaskSettings = task.settings
    with task.timing("load"):
        model = task.load(_model_dtype(vector, settings), task.base)
        if task.device.type == "cuda":
            recompute_layers(model)
    before = task.parts.resume(STATE)
    # A state that the main process does not see is none: on a shared file system two nodes may not see the same at once.
    at = distributed.as_main_has_it(str(before[1]["step"]) if before else None)
    if at is not None and (before is None or str(before[1]["step"]) != at):
        raise MergebenchError(f"{task.parts.folder}: the logits of step {at}, which the main process reads, are not visible here.")
    place = _room_for(task, vector, settings)
    if at is not None and before is not None:
        found, state = before
        logits = {name: found[name].to(place, copy=True) for name in vector.names}
        cut = Cut(*state["cut"])
    else:
        with task.timing("threshold"):
            cut = threshold(vector, settings.density, task.job.threads)
        logits = initial_logits(vector, cut, settings.bias, DTYPES[settings.dtype], place)
        state = {"step": 0, "cut": list(cut), "scale": 0.0, "first_loss": 0.0, "last_loss": 0.0}
    _note_memory(task, model, logits, settings)
    masked = MaskedModel(model, vector, logits, task.tokenizer.pad_token_id, task.seed)
    with task.timing("steps"):
        masked.refresh()
        _descend(task, masked, state, settings)
    with task.timing("round"):
        _round(task, vector, logits, cut, units, state)


def _descend(task: Task, masked: MaskedModel, state: dict[str, Any], settings: MaskSettings) -> None:
    """The steps from ``state["step"]`` on; `state` is kept up to date, and saved with the logits now and then."""
    order, pieces, begun = batches(task.examples, settings.batch_size, task.seed), pieces_of(settings), state["step"]
    for _ in range(begun):
        next(order)
    masked.steps, saved = begun, time.monotonic()
    for step in range(begun, settings.steps):
        rows = next(order)
        if not state["scale"]:
            state["first_loss"], largest = masked.slopes(rows, pieces, settings.l1)
            state["scale"] = largest or 1.0
        state["last_loss"] = masked.step(rows, pieces, settings.l1, settings.learning_rate / state["scale"])
        state["step"] = step + 1
        task.progress(step + 1, settings.steps, "steps", before=begun)
        stop, due = distributed.any_of(task.signals.received is not None, time.monotonic() - saved > task.execution.save_seconds)
        if (stop or due) and step + 1 < settings.steps:
            if task.main:
                task.parts.checkpoint(STATE, masked.logits, state)
            saved = time.monotonic()
            if stop:
                task.leave()


def _round(task: Task, vector: TaskVector, logits: Tensors, cut: Cut, units: dict[str, list[str]], state: dict[str, Any]) -> None:
    """Keep S > 0 and what it has in common with the start."""
    if task.main:
        start = initial_masks(vector, cut)
        for unit, names in units.items():
            masks = {name: (logits[name] > 0).cpu() for name in names}
            changed = sum(int((masks[name].view(-1) != kept).sum()) for name, kept in (next(start) for _ in names))
            facts = {"kept": sum(int(mask.sum()) for mask in masks.values()), "changed": changed}
            task.parts.save(unit, masks, facts | {name: state[name] for name in ("first_loss", "last_loss")})
        task.parts.drop(STATE)
    distributed.wait_for_all()


def _model_dtype(vector: TaskVector, settings: MaskSettings) -> torch.dtype:
    """The dtype of the model in memory: the checkpoint's, or float32."""
    if settings.model_dtype == "checkpoint" and vector.base.dtypes == {"BF16"}:
        return torch.bfloat16
    return torch.float32


def _room_for(task: Task, vector: TaskVector, settings: MaskSettings) -> torch.device:
    """Where the logits lie: on the device, or, where they and the sums of gradients leave too little of it free, on the host."""
    if task.device.type == "cpu":
        return task.device
    size = DTYPES[settings.dtype].itemsize + (4 if pieces_of(settings) > distributed.world_size() else 0)
    free, total = torch.cuda.mem_get_info(task.device)
    return task.device if size * vector.entries <= free - ACTIVATIONS * total else torch.device("cpu")


def _note_memory(task: Task, model: Any, logits: Tensors, settings: MaskSettings) -> None:
    entries = sum(each.numel() for each in logits.values())
    task.memory("logits", sum(each.numel() * each.element_size() for each in logits.values()))
    largest = max(p.numel() * p.element_size() for p in model.parameters())
    task.memory("gradients", largest + (4 * entries if pieces_of(settings) > distributed.world_size() else 0))
