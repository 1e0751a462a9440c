"""What has to be known of the whole model before a direction can be computed: thresholds, ties before each block, the methods' own sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mergebench.kernels.histogram import count_equal
from mergebench.merging.block import Shared
from mergebench.merging.cuts import Cuts, Request
from mergebench.merging.directions import Direction
from mergebench.merging.models import Models
from mergebench.merging.report import Facts
from mergebench.vectors.measure import measure, refine, refine_tensor
from mergebench.vectors.pieces import base_loader, vector_loader
from mergebench.vectors.spectrum import NOTHING, Cut, Spectrum
from mergebench.vectors.walk import BLOCK, Chunk, chunks, ordered

NO_SUMS: tuple[Any, Any] = (None, None)


def blocks(models: Models, chunk: Chunk, cuts: Cuts) -> Iterator[Shared]:
    """The blocks of a chunk, in order. Each one's arrays are overwritten by the next.

    Raises:
        MergebenchError: An input has a value that is NaN or infinite.
    """
    size = chunk.stop - chunk.start
    base, vectors = np.empty(min(BLOCK, size), np.float32), np.empty((len(models.domains), min(BLOCK, size)), np.float32)
    load = base_loader(models.base, *chunk)
    loaders = [vector_loader(specialist, *chunk) for specialist in models.specialists.values()]
    for place in range(0, size, BLOCK):
        if size - place < base.size:
            base, vectors = np.empty(size - place, np.float32), np.empty((len(models.domains), size - place), np.float32)
        load(place, base)
        for subtract, vector in zip(loaders, vectors, strict=True):
            subtract(place, base, vector)
        yield Shared(chunk.name, chunk.start + place, base, vectors, models.domains, cuts, models.statistic_values)


def find_thresholds(models: Models, directions: Sequence[Direction], names: Sequence[str], threads: int) -> Cuts:
    """The thresholds that these directions ask for; at most three walks, none if they ask for nothing.

    Args:
        models: The inputs. Spectra that are not there are measured and kept in `models.spectra`.
        directions: Their `requests` are filled in.
        names: The parameters that are counted, sorted.
        threads: Threads of the walks.
    """
    cuts = Cuts(models.domains, BLOCK)
    for direction in directions:
        direction.requests = _requests(models, direction, names[0])
    requests = list(dict.fromkeys(request for direction in directions for request in direction.requests))
    if requests:
        _fill_in(models, cuts, requests, list(names), threads)
        _count_ties(models, cuts, list(names), threads)
    return cuts


def add_up(models: Models, cuts: Cuts, directions: Sequence[Direction], names: Sequence[str], threads: int) -> None:
    """Walk as often as the methods want for their own sums; fills in `totals` and `tensor_totals` of the directions."""
    while _round(models, cuts, directions, list(names), threads):
        pass


class _Recorder(Cuts):
    """Thresholds that keep nothing, and note who asks for them."""

    def limits(self, request: Request, name: str, offset: int) -> tuple[np.ndarray, np.ndarray]:
        self.found.setdefault(request, {})
        return np.full(len(self.domains), NOTHING, np.uint32), np.zeros(len(self.domains), np.int64)


def _empty(models: Models, name: str, cuts: Cuts) -> Shared:
    """A block without entries: what a method asks for, or does not, is found out with it."""
    return Shared(
        name, 0, np.empty(0, np.float32), np.empty((len(models.domains), 0), np.float32), models.domains, cuts, models.statistic_values
    )


def _requests(models: Models, direction: Direction, name: str) -> tuple[Request, ...]:
    """The thresholds that a method asks for."""
    if not direction.method.spectra:
        return ()
    recorder = _Recorder(models.domains, BLOCK)
    empty = _empty(models, name, recorder)
    while (part := direction.total(empty)) is not None:
        direction.totals += (part,)
    if (part := direction.tensor_total(empty)) is not None:
        direction.tensor_totals[name] = part
    direction.block(empty, np.empty(0, np.float32), Facts())
    direction.totals, direction.tensor_totals = (), {}
    return tuple(recorder.found)


def _fill_in(models: Models, cuts: Cuts, requests: list[Request], names: list[str], threads: int) -> None:
    """Fill in `cuts.found`, measuring the spectra that are not there."""
    whole = [request for request in requests if request.among == "global"]
    each = [request for request in requests if request.among == "tensor"]
    rows = range(len(models.domains))
    unmeasured = [row for row in rows if models.domains[row] not in models.spectra]
    if unmeasured:
        found = measure(
            models.base,
            [models.specialist(row) for row in unmeasured],
            names,
            densities=[[request.densities[row] for request in whole] for row in unmeasured],
            threads=threads,
        )
        models.spectra.update({models.domains[row]: spectrum for row, spectrum in zip(unmeasured, found, strict=True)})
    spectra = [models.spectra[domain] for domain in models.domains]
    scopes = [spectrum.scope(names) for spectrum in spectra]
    specialists = list(models.specialists.values())
    wanted = {(request, row): request.wanted(row, spectra[row].entries(scopes[row])) for request in whole for row in rows}
    bins = [{(scopes[row], spectra[row].bin(wanted[request, row], request.ties, scopes[row])) for request in whole} for row in rows]
    refine(models.base, specialists, spectra, [{(s, b) for s, b in chosen if b is not None} for chosen in bins], threads=threads)
    for request in whole:
        cuts.found[request] = {None: tuple(spectra[row].cut(wanted[request, row], request.ties, scopes[row]) for row in rows)}
    if each:

        def work(name: str) -> tuple[str, dict[Request, tuple[Cut, ...]]]:
            return name, _tensor_cuts(models, spectra, each, name)

        cuts.found.update({request: {} for request in each})
        for name, found_cuts in ordered(names, work, threads):
            for request, cut in found_cuts.items():
                cuts.found[request][name] = cut


def _tensor_cuts(models: Models, spectra: list[Spectrum], requests: list[Request], name: str) -> dict[Request, tuple[Cut, ...]]:
    """Thresholds among the entries of one tensor; its fine counts are dropped at once."""
    rows = range(len(spectra))
    scopes = [spectrum.scope([name]) for spectrum in spectra]
    wanted = {(request, row): request.wanted(row, spectra[row].entries(scopes[row])) for request in requests for row in rows}
    bins = [{spectra[row].bin(wanted[request, row], request.ties, scopes[row]) for request in requests} for row in rows]
    fine = refine_tensor(models.base, list(models.specialists.values()), name, [{b for b in each if b is not None} for each in bins])
    return {
        request: tuple(spectra[row].cut(wanted[request, row], request.ties, scopes[row], fine[row]) for row in rows) for request in requests
    }


def _count_ties(models: Models, cuts: Cuts, names: list[str], threads: int) -> None:
    """Fill in `cuts.before` where thresholds have spare entries."""
    spare = [
        (request, row)
        for request, found in cuts.found.items()
        for row in range(len(models.domains))
        if any(tensor_cuts[row].spare for tensor_cuts in found.values())
    ]
    if not spare:
        return

    def work(chunk: Chunk) -> tuple[Chunk, np.ndarray]:
        counts = np.array(
            [
                [count_equal(block.vectors[row], cuts.cuts(request, chunk.name)[row].limit - 1) for request, row in spare]
                for block in blocks(models, chunk, cuts)
            ],
            np.int64,
        ).reshape(-1, len(spare))
        return chunk, counts

    counts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for chunk, part in ordered(chunks(models.base, names), work, threads):
        counts[chunk.name].append(part)
    running = np.zeros(len(spare), np.int64)
    for name in names:
        inside = np.concatenate(counts[name])
        for column, (request, row) in enumerate(spare):
            start = running[column] if request.among == "global" else 0
            before = start + np.cumsum(inside[:, column]) - inside[:, column]
            cuts.before.setdefault((request, row), {})[name] = before
        running += inside.sum(0)


def _round(models: Models, cuts: Cuts, directions: Sequence[Direction], names: list[str], threads: int) -> bool:
    """One walk for the methods' own sums: a further round of `total`, and in the first round `tensor_total`. False if none wants it."""
    empty = _empty(models, names[0], cuts)
    found = [(direction, *direction.sums(empty)) for direction in directions]
    asking = [(direction, total, part) for direction, total, part in found if total is not None or part is not None]
    if not asking:
        return False

    def work(chunk: Chunk) -> tuple[str, list[tuple[Any, Any]]]:
        sums = [NO_SUMS] * len(asking)
        for shared in blocks(models, chunk, cuts):
            for place, (direction, *_) in enumerate(asking):
                total, part = direction.sums(shared)
                sums[place] = _plus(sums[place][0], total), _plus(sums[place][1], part)
        return chunk.name, sums

    totals = [total for _, total, _ in asking]
    parts: list[dict[str, Any]] = [dict.fromkeys(names, part) for _, _, part in asking]
    for name, sums in ordered(chunks(models.base, names), work, threads):
        for place, (total, part) in enumerate(sums):
            totals[place] = _plus(totals[place], total)
            parts[place][name] = _plus(parts[place][name], part)
    for (direction, _, part), total, by_name in zip(asking, totals, parts, strict=True):
        direction.totals += () if total is None else (total,)
        if part is not None:
            direction.tensor_totals = by_name
    return True


def _plus(first: Any, second: Any) -> Any:
    return second if first is None else first if second is None else first + second
