"""What racing would have lost: halving and golden section, replayed on the outcomes of finished full grids.

    python benchmarks/racing.py results/tiny --config config.yaml --preset tiny

A full grid has scored every candidate on every item, so what another search of the same grid would have seen is known, item by item.
For each method and search the table says how many evaluations the search takes (a block of items counts as its share) and its regret: the
objective of the full grid's winner minus that of the search's winner, both on all items, in per cent of the specialists.
The two stages of Consensus TA are replayed apart, the second with the thresholds of the full grid. The last columns are the regrets of
a full grid whose budget is as many evaluations (`tuning.budget`), and of a candidate drawn at random (its mean).
"""

from __future__ import annotations

import sys
from pathlib import Path

# A script's own folder is searched first, and statistics.py there would stand before Python's module of that name.
sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import mean

import pandas as pd

from mergebench import config
from mergebench.evaluation.settings import BenchmarkSetting
from mergebench.merging.candidates import Candidate, candidates, choose
from mergebench.tuning import racing
from mergebench.tuning.budget import Budget
from mergebench.tuning.log import Evaluation, Key
from mergebench.tuning.scorer import aggregate_of, aggregated, dealt, together, valued
from mergebench.tuning.trials import Trials
from mergebench.workflow.plan import Plan

CONFIG = Path(__file__).resolve().parent.parent / "config.yaml"
SEARCHES: dict[str, tuple[int, racing.Strategy]] = {
    "golden": (1, racing.golden),
    **{
        f"halving, {blocks} blocks, confidence {confidence}": (blocks, partial(racing.halving, confidence=confidence))
        for blocks in (4, 8)
        for confidence in (0, 1, 2)
    },
}
HEADER = ("base", "method", "stage", "search", "evaluations", "of", "regret", "grid, same budget", "random")


class Replay:
    """A `trials.Source`: evaluations of a finished full grid, on all items or on blocks.

    Args:
        folder: of the finished search.
        aggregates: surrogate -> name of its aggregate.
        blocks, seed: as of the search that is replayed.
    """

    def __init__(self, folder: Path, aggregates: Mapping[str, str], blocks: int, seed: int) -> None:
        rows = pd.read_parquet(folder / "search.parquet")
        outcomes = pd.read_parquet(folder / "outcomes.parquet")
        if rows["block"].notna().any() or rows["seed"].nunique() != 1:
            raise SystemExit(f"{folder} is no full grid of one seed; tune it with tuning.search: grid and one seed first.")
        self.rows = {number: of.to_dict("records") for number, of in rows.groupby("candidate")}
        self.outcomes = dict(iter(outcomes.groupby(["candidate", "surrogate"])))
        self.aggregates, self.blocks, self.seed = aggregates, blocks, seed
        self._seen: dict[tuple[str, int | None, tuple[str, ...]], int] = {}

    def evaluations(self, wanted: Sequence[tuple[Key, Candidate]]) -> Iterator[Evaluation]:
        """The evaluations wanted, in this order."""
        for key, candidate in wanted:
            rows = self.rows[key.candidate]
            weights = rows[0]["weights"]
            known = (weights, key.block, candidate.domains)
            alias = self._seen.get(known)
            self._seen.setdefault(known, key.candidate)
            scores = [self._score(row, key.block) for row in rows]
            yield Evaluation(*key, candidate.stage, candidate.recipe, weights, alias, {}, scores)

    def _score(self, row: dict, block: int | None) -> dict:
        number = row["candidate"] if pd.isna(row["alias_of"]) else int(row["alias_of"])
        name = row["surrogate"]
        frame = self.outcomes[number, name]
        if block is not None:
            frame = frame[frame["item"].isin(dealt(frame["item"].tolist(), self.blocks, f"{self.seed}\0{name}")[block])]
        columns = {column: frame[column].tolist() for column in ("item", "group", "outcome")}
        if frame["counts"].notna().all():
            columns["counts"] = frame["counts"].tolist()
        shared = {"surrogate": name, "domain": row["domain"], "seconds": 0.0, "reference": row["reference"], "items": columns}
        if block is None:
            return {**shared, **valued(row["value"], int(row["n"]), row["reference"])}
        score = aggregated(columns, self.aggregates[name])
        return {**shared, **valued(score.value, score.n, row["reference"])}


def main() -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of a preset's results, with tuning/<base>/<method>/")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    options = parser.parse_args()
    plan = Plan(config.load(options.config, preset=options.preset))
    names = [s for group in plan.surrogates.values() for s in group]
    settings = {name: BenchmarkSetting.parse(name, plan.setting(name)) for name in names}
    aggregates = {name: aggregate_of(settings[name], options.results / "data" / name / "rows.jsonl") for name in names}
    rows = [row for base in plan.bases for method in plan.tuned for row in replayed(options.results, plan, base, method, aggregates)]
    lines = [f"| {' | '.join(line)} |" for line in (HEADER, ["---"] * len(HEADER), *rows, *summed(rows))]
    print("\n".join(lines))
    if options.table:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def replayed(results: Path, plan: Plan, base: str, method: str, aggregates: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """The rows of the table for one method of one base."""
    folder = results / "tuning" / base / method
    own = plan.preset.merging.methods[method]
    numbered = dict(enumerate(candidates(method, own.grid, plan.domains, own.parameters)))
    first = {number: c for number, c in numbered.items() if c.stage == "domain"}
    chosen = {}
    if first:
        table = trials(folder, first, aggregates, 1, plan.preset.seed)
        racing.full(table)
        chosen = choose([(first[number], table.objective(number)) for number in table.asked])
    for stage, members in (("domain", first), ("grid", {n: c.given(chosen) for n, c in numbered.items() if c.stage == "grid"})):
        if not members:
            continue
        full = trials(folder, members, aggregates, 1, plan.preset.seed)
        racing.full(full)
        for name, (blocks, strategy) in SEARCHES.items():
            race = trials(folder, members, aggregates, blocks, plan.preset.seed)
            strategy(race)
            cut = trials(folder, members, aggregates, 1, plan.preset.seed, Budget(evaluations=race.budget.spent_evaluations))
            racing.full(cut)
            found = [regret(full, group, other) for other in (race, cut) for group in [racing.by_domains(members)]]
            chance = mean(max(map(full.objective, group)) - full.objective(n) for group in racing.by_domains(members) for n in group)
            spent = race.budget.spent_evaluations, full.budget.spent_evaluations
            yield base, method, stage, name, *(f"{value:.2f}" for value in spent), *(f"{100 * value:.2f}" for value in (*found, chance))


def trials(
    folder: Path, members: Mapping[int, Candidate], aggregates: Mapping[str, str], blocks: int, seed: int, budget: Budget | None = None
) -> Trials:
    """A stage to be replayed."""
    source = Replay(folder, aggregates, blocks, seed)
    return Trials(members, source, partial(together, aggregates=aggregates), seeds=(seed,), blocks=blocks, budget=budget)


def regret(full: Trials, groups: Sequence[Sequence[int]], race: Trials) -> float:
    """How much worse the race's winners are than the full grid's, on all items; the mean over races that are run apart."""
    lost = []
    for group in groups:
        asked = [number for number in group if number in race.asked]
        best = max(map(full.objective, group))
        winner = max(asked, key=lambda number: (race.extent(number), race.objective(number), -number), default=None)
        lost.append(best - (full.objective(winner) if winner is not None else min(map(full.objective, group))))
    return mean(lost)


def summed(rows: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Sums of evaluations, means of regrets (of the stages that score all domains)."""
    for name in SEARCHES:
        mine = [row for row in rows if row[3] == name]
        spent = [f"{sum(float(row[column]) for row in mine):.2f}" for column in (4, 5)]
        lost = [f"{mean(float(row[column]) for row in mine if row[2] == 'grid'):.2f}" for column in (6, 7, 8)]
        yield "all", "all", "sum / mean of grids", name, *spent, *lost


if __name__ == "__main__":
    main()
