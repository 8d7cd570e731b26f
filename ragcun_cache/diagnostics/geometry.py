"""How the outputs for passages fill their space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.diagnostics.blocks import row_blocks


def unit_rows(rows_ne: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the rows (n, e) divided by their norms; a zero row stays zero."""
    norms_n = np.linalg.norm(rows_ne, axis=1).astype(rows_ne.dtype)
    units_ne: NDArray[np.float32] = rows_ne / np.where(norms_n > 0, norms_n, norms_n.dtype.type(1))[:, None]
    return units_ne


def mean_norm(rows_ne: NDArray[np.float32]) -> float:
    """Return the mean Euclidean norm of the rows (n, e)."""
    norms = [np.linalg.norm(block_be, axis=1) for (block_be,) in row_blocks(rows_ne)]
    return float(np.concatenate(norms).mean(dtype=np.float64))


def standard_deviation(rows_ne: NDArray[np.float32]) -> float:
    """Return the standard deviation over all entries of (n, e), as numpy's, which makes a float64 copy of them all."""
    mean = rows_ne.mean(dtype=np.float64)
    total = sum(float(np.square(block_be - mean).sum()) for (block_be,) in row_blocks(rows_ne))
    return float(np.sqrt(total / rows_ne.size))


def mean_cosine(rows_ne: NDArray[np.float32]) -> float:
    """Return the mean cosine over all pairs of different rows of (n, e), n >= 2: near 1 when the outputs collapse.

    With unit rows u: ``(||sum u||^2 - n) / (n (n - 1))``. A zero row has the cosine 0 with every other.
    """
    n, e = rows_ne.shape
    sum_e, directions = np.zeros(e), 0
    for (block_be,) in row_blocks(rows_ne):
        units_be = unit_rows(block_be)
        sum_e += units_be.sum(axis=0, dtype=np.float64)
        directions += int(np.count_nonzero(units_be.any(axis=1)))
    return float((np.square(sum_e).sum() - directions) / (n * (n - 1)))


def uniformity(rows_ne: NDArray[np.float32]) -> float:
    """Return ``log mean exp(-2 ||u_i - u_j||^2)`` over all pairs of different unit rows of (n, e), n >= 2.

    0 when all rows are one, near -4 when they are spread over a sphere of many dims, where two rows are at a right
    angle. Memory is n^2. Source: Wang and Isola, ICML 2020, arXiv 2005.10242, with t = 2.
    """
    units_ne = unit_rows(rows_ne)
    n = len(units_ne)
    squared_n = np.square(units_ne).sum(axis=1)
    exponent_nn = units_ne @ units_ne.T
    exponent_nn *= 4
    exponent_nn -= 2 * squared_n
    exponent_nn -= 2 * squared_n[:, None]
    np.exp(exponent_nn, out=exponent_nn)
    np.fill_diagonal(exponent_nn, 0.0)
    return float(np.log(exponent_nn.sum(dtype=np.float64) / (n * (n - 1))))


def singular_values(rows_ne: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the singular values of the centred rows, (min(n, e),), greatest first.

    From the smaller of the scatter matrix (e, e) and the Gram matrix (n, n), in float64. Values that the rounding of
    float32 rows alone could give are 0, so that rows that are equal but for rounding have no rank: the rounding errors
    of n x e entries of root mean square r, as a random matrix, have a spectral norm of ``2^-24 r (sqrt n + sqrt e)``
    (twice that is cut off, as an output is the sum of several rounded ones).
    """
    n, e = rows_ne.shape
    centred_ne = rows_ne - rows_ne.mean(axis=0, dtype=np.float64)
    square = centred_ne @ centred_ne.T if n < e else centred_ne.T @ centred_ne
    values_e: NDArray[np.float64] = np.sqrt(np.clip(np.linalg.eigvalsh(square)[::-1], 0.0, None))
    rounding = 2.0**-23 * np.sqrt(np.square(rows_ne, dtype=np.float64).mean()) * (np.sqrt(n) + np.sqrt(e))
    return np.where(values_e > rounding, values_e, 0.0)


def effective_rank(singular_e: NDArray[np.float64]) -> float:
    """Return exp of the entropy of the singular values, scaled to sum 1 (RankMe, arXiv 2210.02885, equation 1).

    The number of directions that the rows use, if they use them alike. 0 where there is no spread at all.
    """
    total = singular_e.sum()
    if not total:
        return 0.0
    share_e = singular_e[singular_e > 0] / total
    return float(np.exp(-(share_e * np.log(share_e)).sum()))


def iso_score(singular_e: NDArray[np.float64], dim: int) -> float | None:
    """Return the IsoScore of rows in ``dim`` dims: 1 when all directions have one variance, 0 when one has it all.

    Source: Rudman et al., Findings of ACL 2022, arXiv 2108.07344. Its steps (principal components, variances scaled
    to the norm ``sqrt d``, distance from the vector of ones, rescaling) come down to ``(P - 1) / (d - 1)`` with the
    participation ratio ``P = (sum l)^2 / sum l^2`` of the variances ``l``, the squared singular values. None where
    there is no spread, or one dim only.
    """
    variance_e = np.square(singular_e)
    if dim < 2 or not variance_e.any():
        return None
    variance_e = variance_e / variance_e.max()
    participation = variance_e.sum() ** 2 / np.square(variance_e).sum()
    return float((participation - 1) / (dim - 1))


def sigreg_statistic(rows_ne: NDArray[np.float32]) -> float:
    """Return the SIGReg statistic of the rows (n, e), n >= 2, each column standardised first.

    The loss of ``objectives.sigreg`` with its usual settings and the slices of step 0, so that the shape of the rows is
    asked for and not their scale. Gaussian rows in many dims give 0.58, not the 1.059 of the loss: with the mean of
    the rows taken out, so is the part ``integral t^2 exp(-3 t^2 / 2) dt = sqrt(2 pi / 3) / 3 = 0.482`` that its
    fluctuation has in it. What is not Gaussian gives a figure that grows with n, up to 0.41 n: compare equal numbers of
    rows. A constant column is 0.
    """
    import torch

    from ragcun_cache.objectives.sigreg import sigreg_loss

    centred_ne = rows_ne - rows_ne.mean(axis=0, dtype=np.float64)
    std_e = centred_ne.std(axis=0)
    # A column's mean is rounded: what is left of equal numbers is not a spread.
    varies_e = std_e > np.finfo(np.float32).eps * np.abs(rows_ne).max(axis=0)
    standard_ne = np.where(varies_e, centred_ne / np.where(varies_e, std_e, 1.0), 0.0)
    with torch.inference_mode():
        return float(sigreg_loss(torch.from_numpy(standard_ne.astype(np.float32)), step=0))
