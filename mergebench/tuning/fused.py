"""The `tune_base` stage: the searches of all methods of a base in one job, with one engine start."""

from pathlib import Path
from typing import Any

import torch

from mergebench.artifacts import Job, write_json
from mergebench.costs import cpu_seconds, energy_of, gpu_peak_bytes, gpus_held, own_peak_bytes
from mergebench.energy import EnergyMeter
from mergebench.tuning.guard import surrogates_only
from mergebench.tuning.log import SearchLog
from mergebench.tuning.search import search
from mergebench.tuning.session import Session


def run(job: Job) -> dict[str, Any]:
    """Search the grids of all methods; write what `tuning.run` writes for each, and what each has cost.

    Spec: base, domains, seed, surrogates, evaluation as in `tuning.run`; methods: name -> grid, parameters, scope, and the settings
    of its search. Inputs: as in `tuning.run`, those of all methods together. Outputs are named by their paths,
    ``tuning/<base>/<method>/search`` and so on; ``costs/tune/<base>/<method>`` has the seconds that were spent on one
    method, without those of the engine's start. A killed job continues from the logs of its methods in `job.state`.

    Returns:
        The chosen parameters of each method.
    """
    torch.set_num_threads(job.threads)
    base, gpus = job.spec["base"], gpus_held(job.requested)
    found = {}
    with surrogates_only(job), Session(job) as session:
        for method, own in job.spec["methods"].items():
            spec = {**{key: value for key, value in job.spec.items() if key != "methods"}, "method": method, **own}
            began = cpu_seconds()
            with EnergyMeter() as energy:
                outcome = search(session, spec, SearchLog(job.state / method / "search.jsonl"), gpus=gpus)
                used = energy_of(energy, job.requested)

            def staging(name: str, method: str = method) -> Path:
                ending = ".yaml" if name == "best" else ""
                return job.staging(f"tuning/{base}/{method}/{name}{ending}")

            outcome.write(staging)
            seconds = sum(outcome.seconds.values())
            write_json(
                job.staging(f"costs/tune/{base}/{method}"),
                {
                    "stage": "tune",
                    "base": base,
                    "method": method,
                    "part_of": job.stage,
                    "wall_seconds": round(seconds, 3),
                    "cpu_seconds": round(cpu_seconds() - began, 3),
                    "peak_rss_bytes": own_peak_bytes(),
                    "gpu_seconds": round(seconds * gpus, 3),
                    "gpu_peak_bytes": gpu_peak_bytes(),
                    "energy_joules": used,
                    "timing": {name: round(spent, 3) for name, spent in sorted(outcome.seconds.items())},
                },
            )
            for name, spent in outcome.seconds.items():
                job.timings[name] = job.timings.get(name, 0.0) + spent
            found[method] = outcome.record()
    return found
