"""The regression that RegMean and RegMean++ solve for every linear layer.

All layers that read the same inputs (query, key and value; gate and up projection) share their Gram matrices: they are solved
together, with one reading of the matrices and one factorisation per reduction factor.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mergebench.merging.context import Matrices
from mergebench.merging.lazy import torch
from mergebench.merging.order import released_order

if TYPE_CHECKING:
    from torch import Tensor

# Above this condition number float64 leaves too few digits for identical specialists to come out unchanged to 1e-6.
LARGEST_CONDITION = 1e9
RIDGES = (1e-8, 1e-6, 1e-4, 1e-2)
ITERATIONS = 12
# Rows and columns that are converted to float64 at a time: torch converts whole operands.
BLOCK = 256

logger = logging.getLogger(__name__)


def regress(grams: Sequence[Tensor], layers: Sequence[Matrices], reductions: Sequence[float]) -> Iterator[list[Tensor]]:
    """The task vectors T that minimise sum_t |X_t (T - tau_t)^T|^2, for layers with the same inputs X_t.

    With G_t = X_t^T X_t, its off-diagonal entries multiplied by the reduction factor: (sum_t G_t) T^T = sum_t G_t tau_t^T, solved by
    Cholesky in float64. Where the sum is singular, a multiple of the identity, as small as helps, is added to every G_t:
    directions that no input reaches are averaged, and identical specialists still come out unchanged.

    Memory holds one d x d matrix and one right-hand side in float64, both overwritten by what is made of them, and where there is room a
    second right-hand side, which spares the other reduction factors the product with the Gram matrices. Mapped matrices cost nothing.

    Args:
        grams: G_t of the n specialists, float32 (d, d), symmetric, positive semidefinite.
        layers: The layers, each of shape (outputs, d).
        reductions: Multipliers of the off-diagonal entries, in [0, 1].

    Yields:
        For each reduction factor, the layers' T, float32 (outputs, d).
    """
    if len(grams) == 1:
        yield from ([layer.vector(0) for layer in layers] for _ in reductions)
        return
    diagonals = [gram.diagonal().double() for gram in grams]
    diagonal = torch.stack(diagonals).sum(0)
    if float(diagonal.mean()) <= 0:
        yield from ([layer.average() for layer in layers] for _ in reductions)
        return
    shared = _right(grams, layers) if len(reductions) > 1 and _fits(len(grams), layers) else None
    for reduction in reductions:
        right = _right(grams, layers).mul_(reduction) if shared is None else shared * reduction
        for columns, layer in _columns(layers):
            for row, entries in enumerate(diagonals):
                _add(right[:, columns], layer.vector(row), (1 - reduction) * entries)
        solved = _solve(grams, diagonal, reduction, right, layers)
        found = [right[:, columns].T.to(torch.float32).contiguous() if solved else layer.average() for columns, layer in _columns(layers)]
        del right  # before the next one is made
        yield found
        del found


def _fits(n: int, layers: Sequence[Matrices]) -> bool:
    """Whether right-hand sides can be kept for the next reduction factor within n + 2 float32 copies of the largest matrix.

    What counts is the factor, the kept and the current right-hand sides and a few blocks in float64, and the directions in float32.
    """
    width, outputs = layers[0].shape[1], [layer.shape[0] for layer in layers]
    needed = 8 * width * (width + 4 * BLOCK) + 20 * width * sum(outputs)
    return needed <= (n + 2) * 4 * width * max(width, *outputs)


def regress_released(grams: Sequence[Tensor], layer: Matrices, reduction: float) -> Tensor:
    """What the released MergeBench code computes from the same matrices: everything in bfloat16, the inverse rounded to it.

    Returns:
        merged - base, float32 (outputs, d).
    """
    half, base = torch.bfloat16, layer.base
    left = torch.zeros(grams[0].shape, dtype=half, device=base.device)
    right = torch.zeros(base.T.shape, dtype=half, device=base.device)
    for row in released_order(layer.domains):
        gram = grams[row]
        # The released code multiplies by a matrix of factors: a, and (1 - a) + a on the diagonal.
        factors = torch.full(gram.shape, reduction, dtype=half, device=base.device)
        factors.diagonal().copy_(torch.tensor(1 - reduction, dtype=half) + torch.tensor(reduction, dtype=half))
        reduced = gram.to(half) * factors
        left += reduced
        right += reduced @ (base + layer.vector(row)).to(half).T
    total = left.float()
    singular = bool((total.diagonal() == 0).any()) or float(torch.linalg.cond(total)) > 1e8
    inverse = (torch.linalg.pinv(total) if singular else torch.inverse(total)).to(half)
    return (inverse @ right).T.float() - base


def average_released(layer: Matrices) -> Tensor:
    """The mean of the weights as the released code computes it, in bfloat16; merged - base, float32 (*shape)."""
    base = layer.base
    first, *others = released_order(layer.domains)
    total = (base + layer.vector(first)).bfloat16()
    for row in others:
        total += (base + layer.vector(row)).bfloat16()
    return (total / len(layer.domains)).float() - base


def _solve(grams: Sequence[Tensor], diagonal: Tensor, reduction: float, right: Tensor, layers: Sequence[Matrices]) -> bool:
    """Solve for T^T, float64 (d, outputs), written over `right`; False where even the largest ridge does not help."""
    unit = float(diagonal.mean())
    for ridge in (0.0, *RIDGES):
        left = _total(grams)
        left.mul_(reduction).diagonal().copy_(diagonal + ridge * unit)
        largest = _largest(left)
        factor, failed = factorise(left)
        condition = float("inf") if failed else largest * _largest_inverse(factor)
        if condition <= LARGEST_CONDITION:
            for columns, layer in _columns(layers) if ridge else ():
                _add(right[:, columns], layer.average(), torch.full_like(diagonal, ridge * unit))
            _substitute(factor, right)
            return True
        del left, factor
        logger.warning(
            "%s: the sum of its Gram matrices has a condition number of %s; %s.",
            " and ".join(layer.name for layer in layers),
            f"about {condition:.1e}" if condition < float("inf") else "more than 1e16",
            "a larger ridge is added" if ridge < RIDGES[-1] else "the specialists are averaged",
        )
    return False


def factorise(matrix: Tensor) -> tuple[Tensor, bool]:
    """The lower Cholesky factor of a symmetric float64 matrix, written over it, and whether that failed.

    LAPACK works in place on a column-major matrix, which the transpose of a symmetric row-major one is.
    """
    info = torch.empty((), dtype=torch.int32, device=matrix.device)
    torch.linalg.cholesky_ex(matrix.T, out=(matrix.T, info))
    return matrix.T, bool(info)


def _substitute(factor: Tensor, right: Tensor) -> Tensor:
    """Solve factor factor^T X = right; X is written over `right`, a block of columns at a time."""
    for column in range(0, right.shape[1], BLOCK):
        part = right[:, column : column + BLOCK]
        half = torch.linalg.solve_triangular(factor, part, upper=False)
        part.copy_(torch.linalg.solve_triangular(factor.T, half, upper=True))
    return right


def _columns(layers: Sequence[Matrices]) -> Iterator[tuple[slice, Matrices]]:
    """Each layer with its columns of the right-hand side."""
    start = 0
    for layer in layers:
        yield slice(start, start + layer.shape[0]), layer
        start += layer.shape[0]


def _total(grams: Sequence[Tensor]) -> Tensor:
    total = torch.zeros(grams[0].shape, dtype=torch.float64, device=grams[0].device)
    for gram in grams:
        for row in range(0, len(gram), BLOCK):
            total[row : row + BLOCK] += gram[row : row + BLOCK]
    return total


def _add(right: Tensor, vector: Tensor, weights: Tensor) -> None:
    """right += weights * vector^T, a block at a time: float64 (d, outputs), float32 (outputs, d), float64 (d,)."""
    for row in range(0, len(right), BLOCK):
        right[row : row + BLOCK] += weights[row : row + BLOCK, None] * vector[:, row : row + BLOCK].T


def _right(grams: Sequence[Tensor], layers: Sequence[Matrices]) -> Tensor:
    """sum_t G_t tau_t^T with the full Gram matrices, float64 (d, all outputs); made in blocks, which bound the float64 copies."""
    width = len(grams[0])
    right = torch.zeros(width, sum(layer.shape[0] for layer in layers), dtype=torch.float64, device=grams[0].device)
    for columns, layer in _columns(layers):
        for index, gram in enumerate(grams):
            vector, outputs = layer.vector(index), right[:, columns]
            for row in range(0, width, BLOCK):
                rows = gram[row : row + BLOCK].double()
                for column in range(0, len(vector), BLOCK):
                    outputs[row : row + BLOCK, column : column + BLOCK] += rows @ vector[column : column + BLOCK].double().T
    return right


def _start(size: int, like: Tensor) -> Tensor:
    """A fixed vector with a share in every eigenvector of any matrix that occurs."""
    return torch.cos(torch.arange(size, dtype=torch.float64, device=like.device) ** 2)


def _largest(matrix: Tensor) -> float:
    """The largest eigenvalue of a positive semidefinite matrix, from below, by power iteration."""
    vector, value = _start(len(matrix), matrix), 0.0
    for _ in range(ITERATIONS):
        vector = matrix @ (vector / vector.norm())
        value = float(vector.norm())
        if value == 0:
            break
    return value


def _largest_inverse(factor: Tensor) -> float:
    """The largest eigenvalue of (factor factor^T)^-1, from below, by inverse iteration."""
    vector, value = _start(len(factor), factor)[:, None], 0.0
    for _ in range(ITERATIONS):
        vector = _substitute(factor, vector / vector.norm())
        value = float(vector.norm())
    return value
