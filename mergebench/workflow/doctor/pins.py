"""Versions that the project asks for."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pins:
    """Versions that the project asks for: `direct` in pyproject.toml, `locked` in the lock file `lock` ("" if there is none)."""

    lock: str
    direct: dict[str, str]
    locked: dict[str, str]
    python: str = ""


def pins(root: Path, *, built_for_cuda: bool) -> Pins:
    """Read the pins of the checkout in `root`: the GPU lock for a CUDA build of torch, else the CPU lock."""
    project = root / "pyproject.toml"
    direct: dict[str, str] = {}
    python = ""
    if project.is_file():
        content = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        direct = versions("\n".join([*content.get("dependencies", ()), *content.get("optional-dependencies", {}).get("slurm", ())]))
        python = content.get("requires-python", "").removeprefix(">=")
    names = ("gpu.lock", "cpu.lock") if built_for_cuda else ("cpu.lock",)
    lock = next((root / "envs" / name for name in names if (root / "envs" / name).is_file()), None)
    return Pins(lock.name if lock else "", direct, versions(lock.read_text(encoding="utf-8")) if lock else {}, python)


def versions(text: str) -> dict[str, str]:
    """Names, normalised, and versions of lines such as ``name[extra]==1.2 \\``; everything else is skipped."""
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}
