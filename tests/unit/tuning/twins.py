"""A pico base and two specialists near it, with surrogates, scores and a job to tune them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mergebench.artifacts import Job
from mergebench.checkpoints.reader import Checkpoint
from mergebench.merging.statistics.store import save_statistics
from tests.unit.training.pico import write_pico

DOMAINS = ("math", "safety")
SURROGATES = {"math": ["mmlu_stem"], "safety": ["wildjailbreak"]}
CASES: dict[str, tuple[dict[str, float], float]] = {
    "model_soup": ({}, 1.0),
    "task_arithmetic": ({}, 0.37),
    "ties": ({"density": 0.3}, 0.7),
    "dare": ({"density": 0.5}, 0.4),
    "consensus_ta": ({"thresholds": 0.3}, 0.6),
    "dataless_localize_and_stitch": ({"density": 0.2}, 1.0),
    "localize_and_stitch": ({}, 1.0),
    "fisher": ({}, 1.0),
    "regmean": ({"reduction": 0.3}, 1.0),
}
"""Every method of the paper: parameters of one candidate, and its scale."""


def family(folder: Path, kind: str) -> tuple[Path, dict[str, Path]]:
    """A random base in bfloat16 and two specialists: base plus seeded noise."""
    base = write_pico(folder / "base/weights", kind)
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    specialists = {}
    for seed, domain in enumerate(DOMAINS):
        target = folder / f"specialist_{domain}/weights"
        target.mkdir(parents=True)
        for file in base.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        generator = torch.Generator().manual_seed(seed)
        noisy = {n: (t + 0.05 * torch.randn(t.shape, generator=generator)).bfloat16() for n, t in tensors.items()}
        save_file(noisy, target / "model.safetensors", metadata={"format": "pt"})
        specialists[domain] = target
    return base, specialists


def measured(folder: Path, base: Path) -> list[Path]:
    """Statistics of two specialists, as if they had been measured."""
    random, written = torch.Generator().manual_seed(0), []
    shapes = {name: info.shape for name, info in Checkpoint(base).tensors.items()}
    for domain in DOMAINS:
        inputs = {name: torch.randn(64, shape[1], generator=random) for name, shape in shapes.items() if "proj.weight" in name}
        kinds = {
            "fisher": {name: torch.randn(shape, generator=random).square() for name, shape in shapes.items()},
            "gram": {name: x.T @ x / len(x) for name, x in inputs.items()},
            "mask": {name: torch.randn(shape, generator=random) > 0.5 for name, shape in shapes.items() if "layers" in name},
        }
        for kind, tensors in kinds.items():
            written.append(folder / f"{kind}_{domain}.safetensors")
            save_statistics(written[-1], tensors, {"kind": kind, "domain": domain})
    return written


def write_rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """A dataset folder as the prepare stage leaves it; returns its manifest."""
    (folder / name).mkdir(parents=True)
    (folder / name / "rows.jsonl").write_text("".join(json.dumps({"id": str(i), **row}) + "\n" for i, row in enumerate(rows)))
    (folder / name / "manifest.json").write_text(json.dumps({"files": {}}))
    return folder / name / "manifest.json"


def tune_job(folder: Path, method: str, grid: dict[str, list[float]], **spec: Any) -> Job:
    """A job of the tune stage on a pico family."""
    if not (folder / "base").exists():
        family(folder, "llama")
        write_rows(
            folder / "data",
            "mmlu_stem",
            [{"question": f"{a} + 1 =", "choices": [str(a + 1), str(a), "7", "0"], "answer": 0, "subject": "sums"} for a in range(1, 5)],
        )
        write_rows(folder / "data", "wildjailbreak", [{"adversarial": f"do {i}", "vanilla": f"do {i}"} for i in range(3)])
        for domain, names in SURROGATES.items():
            for name in names:
                record = {"benchmark": name, "model": f"specialist_{domain}", "value": 0.5}
                (folder / f"{name}.json").write_text(json.dumps(record))
    setting = {"formulation": "cloze", "apply_chat_template": True, "max_tokens": 4, "judge": "keyword"}
    full = {
        "base": "pico",
        "method": method,
        "domains": list(DOMAINS),
        "grid": grid,
        "parameters": {},
        "scope": "all",
        "seed": 0,
        "surrogates": SURROGATES,
        "evaluation": {"backend": "transformers", "dtype": "float32", "benchmarks": {"mmlu_stem": setting, "wildjailbreak": setting}},
        **spec,
    }
    return Job(
        stage="tune",
        spec=full,
        inputs={
            "base": folder / "base/weights",
            "specialists": [folder / f"specialist_{d}/weights" for d in DOMAINS],
            "data": [folder / f"data/{s}/manifest.json" for s in ("mmlu_stem", "wildjailbreak")],
            "references": [folder / "mmlu_stem.json", folder / "wildjailbreak.json"],
        },
        outputs={
            "search": folder / "search.parquet",
            "outcomes": folder / "outcomes.parquet",
            "curve": folder / "curve.parquet",
            "best": folder / "best.yaml",
        },
        state=folder / "state",
    )
