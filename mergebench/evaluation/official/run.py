"""The official stage: the scores of all models in the schemas of lm-eval and of the authors' scripts.

Specification: ``bases`` and ``models``. Inputs: ``scores`` (all score records, each with its items beside it). Outputs:
``official/<base>/<model>/lm_eval``, ``.../code_eval`` and ``.../safety_eval``.
"""

from pathlib import Path
from typing import Any

from mergebench.artifacts import Job, write_json
from mergebench.errors import MergebenchError
from mergebench.evaluation.official import code_eval, lm_eval, safety
from mergebench.evaluation.official.scores import load

WRITERS = {"lm_eval": lm_eval.write, "code_eval": code_eval.write, "safety_eval": safety.write}


def run(job: Job) -> dict[str, Any]:
    """Write every file that is asked for; returns nothing for the manifest."""
    folders = {(path.parent.parent.name, path.parent.name): path.parent for path in job.paths("scores")}
    for done, name in enumerate(sorted(name for name in job.outputs if name not in ("manifest", "cost"))):
        place = Path(name)
        model = (place.parent.parent.name, place.parent.name)
        if model not in folders:
            raise MergebenchError(f"{'/'.join(model)} has no score among the inputs; evaluate it first.")
        write_json(job.staging(name), WRITERS[place.name](list(load(folders[model]))))
        job.progress(done + 1, len(job.outputs), "files written")
    return {}
