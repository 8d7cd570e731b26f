from __future__ import annotations

from pathlib import Path

import pytest

import ragcun_cache
from ragcun_cache.training import code

SOURCES = Path(ragcun_cache.__file__).parent


def version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, edited: str, old: str, new: str) -> str:
    """The version of a package in which ``old`` in the module ``edited`` is ``new``."""

    def path(module: str) -> Path:
        original = SOURCES.joinpath(*module.split(".")[1:]).with_suffix(".py")
        if module != f"ragcun_cache.{edited}":
            return original
        text = original.read_text()
        assert old in text
        copy = tmp_path / "edited.py"
        copy.write_text(text.replace(old, new))
        return copy

    monkeypatch.setattr(code, "_path", path)
    return code.code_version.__wrapped__()


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
    today = code.code_version()
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
    today = code.code_version()
    assert version(monkeypatch, tmp_path, edited, old, new) == today
