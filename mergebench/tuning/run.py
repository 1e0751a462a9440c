"""The `tune` stage: score candidates of a method's grid on the surrogates and keep the best.

The surrogates are the only data that this stage can read (`guard`). A candidate's objective is the mean over the domains of its
surrogate score divided by the score of that domain's specialist, as the paper normalises benchmarks (section 4.1).
"""

from typing import Any

import torch

from mergebench.artifacts import Job
from mergebench.costs import gpus_held
from mergebench.tuning.guard import surrogates_only
from mergebench.tuning.log import SearchLog
from mergebench.tuning.search import search
from mergebench.tuning.session import Session


def run(job: Job) -> dict[str, Any]:
    """Search the grid; write `search`, `outcomes` and `curve` (Parquet) and `best` (YAML).

    Spec: base, method, domains, grid, parameters, scope, seed, surrogates (domain -> names), evaluation (backend, dtype,
    settings of the surrogates); seeds, search, blocks, halving, budget where they differ from the defaults (`search.Settings`).
    Inputs: those of a merge; data (manifests of the surrogates' rows); references (score records of the specialists on the
    surrogates). A killed search continues from its log in `job.state`.

    Returns:
        The number of candidates and the chosen parameters.

    Raises:
        MergebenchError: a reference is missing, an input of the merge is wrong, or the budget is too small.
    """
    torch.set_num_threads(job.threads)
    with surrogates_only(job), Session(job) as session:
        outcome = search(session, job.spec, SearchLog(job.state / "search.jsonl"), gpus=gpus_held(job.requested))
    job.timings |= outcome.seconds
    outcome.write(job.staging)
    return outcome.record()
