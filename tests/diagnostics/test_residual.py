from __future__ import annotations

import numpy as np
import pytest

from ragcun_cache.diagnostics.residual import relative_residual


def test_relative_residual_is_its_definition() -> None:
    inputs_nd = np.array([[3, 4], [0, 2]], np.float32)
    assert relative_residual(inputs_nd, inputs_nd) == 0.0
    assert relative_residual(2 * inputs_nd, inputs_nd) == pytest.approx(1.0)
    assert relative_residual(np.array([[3, 4], [0, 5]], np.float32), inputs_nd) == pytest.approx(0.75)
    assert relative_residual(2 * inputs_nd, inputs_nd.astype(np.float16)) == pytest.approx(1.0)
    assert np.isfinite(relative_residual(inputs_nd, np.zeros((2, 2), np.float32)))
