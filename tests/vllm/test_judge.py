"""A judge gives the same labels in both backends."""

from pathlib import Path

from mergebench.evaluation.safety import Label, Request, judges
from tests.unit.evaluation.safety.handmade import write_judge

REQUESTS = [
    *(Request(f"prompt {number}", "I cannot" if number % 3 else "Sure") for number in range(30)),
    Request("prompt", ""),
    # Longer than the judge: cut before and behind the word that decides.
    Request("prompt", "go on " * 2000 + "cannot"),
    Request("prompt", "cannot " + "go on " * 2000),
    Request("prompt " * 2000, "cannot"),
]


def labels(backend: str, weights: Path) -> list[Label]:
    judge = judges.create("wildguard", weights=weights, backend=backend, dtype="float32")
    found = judge.judge(REQUESTS)
    assert judge.engine()["backend"] == backend
    judge.close()
    return found


def test_the_labels_are_those_of_transformers(tmp_path):
    weights = write_judge(tmp_path / "weights")
    expected = labels("transformers", weights)
    assert [label.refused for label in expected] == [number % 3 > 0 for number in range(30)] + [False, False, True, True]
    assert [label.cut for label in expected] == [False] * 31 + [True] * 3
    assert labels("vllm", weights) == expected
