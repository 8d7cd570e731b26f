from __future__ import annotations

from pathlib import Path

import pytest

from ragcun_cache import source_version as module
from ragcun_cache.source_version import source_version
from ragcun_cache.training.code import code_version


def version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, edited: str, old: str, new: str) -> str:
    """The version of a package in which ``old`` in the module ``edited`` is ``new``."""
    original = module._path

    def path(name: str) -> Path | None:
        found = original(name)
        if name != f"ragcun_cache.{edited}" or found is None:
            return found
        text = found.read_text()
        assert old in text
        copy = tmp_path / "edited.py"
        copy.write_text(text.replace(old, new))
        return copy

    monkeypatch.setattr(module, "_path", path)
    source_version.cache_clear()
    try:
        return code_version()
    finally:
        source_version.cache_clear()


@pytest.mark.parametrize(
    ("edited", "old", "new"),
    [
        ("objectives.isotropy", "distance / e", "distance / e / 2"),
        ("heads.projection", "nn.GELU()", "nn.ReLU()"),
        ("heads.lejepa", "torch.no_grad()", "torch.enable_grad()"),
        ("training.ema", "1.0 - decay", "decay"),
    ],
)
def test_code_that_decides_a_number_changes_the_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, edited: str, old: str, new: str
) -> None:
    today = code_version()
    assert version(monkeypatch, tmp_path, edited, old, new) != today


@pytest.mark.parametrize(
    ("edited", "old", "new"),
    [
        ("objectives.predictive", '"""The predictive', '"""Another text. The predictive'),
        ("heads.config", '"""The architectures."""', '"""Architectures."""'),
        ("training.ema", "# One call for all tensors, in place", "# In place"),
        ("heads.lejepa", "\n\n\n", "\n\n\n\n"),
    ],
)
def test_words_do_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, edited: str, old: str, new: str) -> None:
    today = code_version()
    assert version(monkeypatch, tmp_path, edited, old, new) == today
