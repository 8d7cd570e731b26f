from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ragcun_cache.evaluation.significance import Comparison, holm
from reproduction.causes import find_out, is_supported, verdict_sentence
from reproduction.plan import Cause
from reproduction.rows import RAW, Row

RNG = np.random.default_rng(0)
BASE = {"a": RNG.random((4, 60)) * 0.5, "b": RNG.random((4, 30)) * 0.5}


def shifted(by: float, noise: float = 0.02) -> dict[str, np.ndarray]:
    return {name: scores + by + noise * RNG.normal(size=scores.shape) for name, scores in BASE.items()}


def cause(removed: str, side: str) -> Cause:
    return Cause.model_validate(
        {"row": "a row", "claim": "it is so.", "failed": "failed", "removed": removed, "side": side}
    )


@pytest.fixture
def rows(row_of: Callable[..., Row]) -> dict[str, Row]:
    made = {
        RAW: {name: scores.mean(axis=0, keepdims=True) + 0.2 for name, scores in BASE.items()},
        "failed": BASE,
        "higher": shifted(0.1),
        "lower": shifted(-0.1),
        "same": shifted(0.0, 0.01),
        "slightly": shifted(0.002, 0.0),
        "noisy": {name: scores + RNG.normal(0, 0.3, scores.shape[1]) for name, scores in BASE.items()},
        "missing": {},
    }
    return {label: row_of(label, scores) for label, scores in made.items()}


@pytest.mark.parametrize(
    ("removed", "side", "supported", "words"),
    [
        ("higher", "higher", True, "**Supported**: `higher` is higher, by more than the chance of the queries"),
        ("lower", "higher", False, "**Not supported**: `lower` is lower, and the claim says higher"),
        ("higher", "same", False, "**Not supported**: `higher` is higher, and the claim says the same"),
        ("lower", "same", False, "**Not supported**: `lower` is lower, and the claim says the same"),
        ("same", "same", True, "**Supported**: no difference is to be seen"),
        ("noisy", "same", False, "**Not supported**: no difference is significant, but"),
        ("failed", "same", True, "**Supported**: no difference is to be seen"),
        ("slightly", "same", True, "**Supported**: `slightly` is higher, but by next to nothing"),
        ("failed", "higher", False, "**Not supported**: `failed` is the same"),
        ("missing", "higher", None, "**Open**"),
        ("missing", "same", None, "**Open**"),
    ],
)
def test_a_verdict_for_every_outcome(
    rows: dict[str, Row], removed: str, side: str, supported: bool | None, words: str
) -> None:
    [finding] = find_out([cause(removed, side)], rows)
    assert finding.supported is supported
    assert verdict_sentence(finding).startswith(words)


def test_higher_by_luck_is_not_supported() -> None:
    lucky = Comparison(0.02, (-0.01, 0.05), 0.04, 0.08, 1, 0, 0)
    assert not is_supported("higher", lucky)
    assert is_supported("higher", Comparison(0.02, (0.01, 0.05), 0.01, 0.04, 1, 0, 0))
    # Neither is that no difference is significant evidence of equality, nor is every significant one worth the name.
    assert not is_supported("same", Comparison(0.004, (-0.004, 0.012), 0.3, 0.6, 1, 0, 0))
    assert is_supported("same", Comparison(0.004, (0.001, 0.007), 0.01, 0.02, 1, 0, 0))


def test_seeds_and_the_share_of_what_is_lacking(rows: dict[str, Row]) -> None:
    higher, lower = find_out([cause("higher", "higher"), cause("lower", "higher")], rows)
    assert (higher.higher_seeds, higher.shared_seeds) == (4, 4)
    assert higher.recovered == pytest.approx(0.5, abs=0.05)
    assert (lower.higher_seeds, lower.recovered) == (0, None)


def test_p_is_corrected_for_all_claims_that_can_be_tested(rows: dict[str, Row]) -> None:
    causes = [cause("higher", "higher"), cause("missing", "higher"), cause("noisy", "same")]
    findings = find_out(causes, rows)
    assert findings[1].comparison is None
    tested = {index: found.comparison for index, found in enumerate(findings) if found.comparison}
    assert {index: one.p_holm for index, one in tested.items()} == holm(
        {index: one.p_value for index, one in tested.items()}
    )
