"""Score a language model on benchmarks in one process: ask it, then judge and run what was deferred.

The workflow's jobs do the two steps apart (`mergebench.evaluation.run`, `mergebench.evaluation.settle`); tuning, which scores
one set of weights after another, does them here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mergebench.evaluation import safety, settling
from mergebench.evaluation.asking import Asking, Progress, Result
from mergebench.evaluation.responses import Answers
from mergebench.evaluation.scoring import Record
from mergebench.evaluation.settings import BenchmarkSetting

if TYPE_CHECKING:
    from lm_eval.api.model import LM

Finished = Callable[[str, Record], None]


class Suite:
    """Benchmarks with their settings and rows, ready to score models.

    Args:
        settings: one per benchmark.
        rows: a folder with ``<benchmark>/rows.jsonl``, or the path of the rows of each benchmark.
        workers: model-written programs that run at the same time.
        judges: by name; those that need no model are made here.
    """

    def __init__(
        self,
        settings: Sequence[BenchmarkSetting],
        rows: Path | Mapping[str, Path],
        *,
        workers: int = 1,
        judges: Mapping[str, safety.Judge] | None = None,
    ) -> None:
        self.asking = Asking(settings, rows)
        self.workers = workers
        self._given = dict(judges or {})
        for name in self.settings:
            if self.asking.deferred(name) == "safety":
                safety.judges.check(self.settings[name].judge)

    @property
    def settings(self) -> dict[str, BenchmarkSetting]:
        """The setting of each benchmark."""
        return self.asking.settings

    @cached_property
    def _judges(self) -> dict[str, safety.Judge]:
        names = {s.judge for n, s in self.settings.items() if self.asking.deferred(n) == "safety"}
        return {name: self._given.get(name) or safety.judges.create(name) for name in sorted(names)}

    def evaluate(self, lm: "LM", progress: Progress | None = None, finished: Finished | None = None) -> dict[str, Record]:
        """Score a model on every benchmark, in the order of the settings.

        Args:
            lm: any lm-eval language model.
            progress: called with done, total and what is being done.
            finished: called with the name and record of a benchmark as soon as it is scored.
        """
        records: dict[str, Record] = {}

        def settle(name: str, result: Result) -> None:
            records[name] = self._settled(name, result, progress) if isinstance(result, Answers) else result
            if finished is not None:
                finished(name, records[name])

        self.asking.ask(lm, progress, settle)
        return {name: records[name] for name in self.settings}

    def _settled(self, name: str, answers: Answers, progress: Progress | None) -> Record:
        questions = self.asking.questions(name)
        if self.asking.deferred(name) == "code":
            return settling.programs_run(questions, answers, workers=self.workers, progress=progress)
        return settling.judged_here(questions, answers, self._judges[self.settings[name].judge])


def evaluate(
    lm: "LM",
    settings: Sequence[BenchmarkSetting],
    data_root: Path | Mapping[str, Path],
    progress: Progress | None = None,
) -> dict[str, Record]:
    """Score a model once; see `Suite` for scoring several."""
    return Suite(settings, data_root).evaluate(lm, progress)
