"""How kernels are compiled: without the interpreter's lock, kept on disk, and with every operation rounded as written.

There is no fast mathematics and no contraction into fused multiply-adds: a kernel and the torch definition of the same formula give the
same bits, on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile `function` when it is first called; keep the machine code beside its file, or in the user's cache.

    Where neither can be written the code is compiled anew in every process.
    """
    try:
        return numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # numba finds no folder that it may write to
        return numba.njit(function, nogil=True)
