"""Checks of what has to be fetched."""

from __future__ import annotations

from collections.abc import Iterator

from mergebench.workflow.doctor.facts import Facts
from mergebench.workflow.doctor.finding import Finding, failed, ok, warning


def token(facts: Facts) -> Iterator[Finding]:
    """Is there a token for what the hub gives only to known accounts?"""
    if not facts.gated:
        yield ok("hub token", "not needed: nothing gated is left to fetch")
    elif facts.token:
        yield ok("hub token", f"present (not tried); needed for {', '.join(facts.gated)}")
    else:
        todo = "accept their licences on the hub, then log in (`hf auth login`, or HF_TOKEN in the environment)."
        yield failed("hub token", f"none found; needed for {', '.join(facts.gated)}", todo)


def fetched(facts: Facts) -> Iterator[Finding]:
    """Are the base models here already?"""
    if facts.fetched == facts.bases:
        yield ok("base models", f"all {facts.bases} fetched")
    else:
        todo = "fetch first, so that a missing licence shows at once: snakemake --until fetch_base fetch_data fetch_training_data"
        yield warning("base models", f"{facts.fetched} of {facts.bases} fetched", todo)
