"""Applying a head to cached vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ragcun_cache.errors import HeadError
from ragcun_cache.heads.config import Input
from ragcun_cache.role import Role

if TYPE_CHECKING:
    from torch import Tensor

    from ragcun_cache.heads.head import Head


def apply_head(
    head: Head,
    vectors_nd: NDArray[np.float32],
    role: Role,
    *,
    norms_n: NDArray[np.float32] | None = None,
    batch_rows: int = 8192,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Map cached unit-norm rows (n, d) to the rows that are searched, (n, e) float32, in evaluation mode.

    A head with ``input: pooled`` needs ``norms_n``, the cached norms (n,) of the pooled vectors; others ignore them.
    Raises HeadError if the dimension is not the head's, or norms are needed and not given.
    """
    import torch

    config = head.config
    if vectors_nd.ndim != 2 or vectors_nd.shape[1] != config.in_dim:
        raise HeadError(
            "the head does not fit the vectors",
            expected=f"(rows, {config.in_dim})",
            found=tuple(vectors_nd.shape),
            fix="use a head that was trained on vectors of this encoder",
        )
    if config.input == Input.POOLED:
        if norms_n is None:
            raise HeadError("this head takes pooled vectors: it needs the norms that are in the cache")
        vectors_nd = vectors_nd * norms_n[:, None]
    head.to(device)
    return encode_rows(head, torch.from_numpy(np.ascontiguousarray(vectors_nd, dtype=np.float32)), role, batch_rows)


def encode_rows(head: Head, vectors_nd: Tensor, role: Role, batch_rows: int = 8192) -> NDArray[np.float32]:
    """Encode the rows (n, d) of a tensor, batch by batch, on the device that the head is on.

    The head is put in evaluation mode for it and left in the mode it was in.
    """
    import torch

    device = next((parameter.device for parameter in head.parameters()), vectors_nd.device)
    encode = head.encode_query if role == Role.QUERY else head.encode_passage
    encoded_ne = np.empty((len(vectors_nd), head.config.out_dim), dtype=np.float32)
    was_training = head.training
    head.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(vectors_nd), batch_rows):
                rows_bd = vectors_nd[start : start + batch_rows].to(device, torch.float32)
                encoded_ne[start : start + batch_rows] = encode(rows_bd).cpu().numpy()
    finally:
        head.train(was_training)
    return encoded_ne
