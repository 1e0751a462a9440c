"""torch, imported when it is first used.

Most merges on a CPU run in compiled kernels and never touch torch; importing it takes longer than merging a small model. Files of
methods take it from here, so that listing or running them costs nothing until a torch definition is evaluated:

    from mergebench.merging.lazy import torch
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Lazy:
        """Stands for a module until one of its attributes is asked for."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            return getattr(importlib.import_module(self._name), attribute)

    torch = _Lazy("torch")

__all__ = ["torch"]
