"""The `drop` stage: delete the weights of a merged model that has been asked everything, and record what was deleted."""

from typing import Any

from mergebench.artifacts import Job, write_json
from mergebench.storage.weights import drop


def run(job: Job) -> dict[str, Any]:
    """Drop the model's shards. Inputs: weights. Outputs: record (what was deleted, and how it is made again)."""
    record = drop(job.path("weights"), job.state.parent)
    write_json(job.staging("record"), {**record, "base": job.spec["base"], "model": job.spec["model"]})
    return {}
