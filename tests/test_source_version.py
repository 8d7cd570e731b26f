from __future__ import annotations

from pathlib import Path

import pytest

import ragcun_cache
from ragcun_cache import source_version as module
from ragcun_cache.source_version import source_version
from ragcun_cache.tuning.code import _DECIDING, _ROOT

SOURCES = Path(ragcun_cache.__file__).parent


def edited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, old: str, new: str) -> str:
    """The version of the code of tuning in which ``old`` in the file ``name`` is ``new``."""
    text = (SOURCES / name).read_text()
    assert old in text
    copy = tmp_path / "edited.py"
    copy.write_text(text.replace(old, new))
    path = module._path
    monkeypatch.setattr(module, "_path", lambda one: copy if path(one) == SOURCES / name else path(one))
    return source_version.__wrapped__(_ROOT, _DECIDING)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("tuning/tune.py", "_FOLDS = 5", "_FOLDS = 4"),
        ("tuning/ladder.py", "(5, 10, 20)", "(5, 10)"),
        # Imported by its package: ``from ragcun_cache.adapters import closed_form``.
        ("adapters/closed_form.py", "return ", "return 2 * "),
        ("retrieval/bm25.py", "default=0.9", "default=1.2"),
        ("heads/adapter.py", "lerp(self.weight, alpha)", "lerp(self.weight, 1.0)"),
        ("objectives/corpus_softmax.py", "temperature", "heat"),
        ("encoder/template.py", "TEMPLATE = ", "TEMPLATE = 'x' + "),
    ],
)
def test_code_that_decides_changes_the_version(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, old: str, new: str
) -> None:
    today = source_version(_ROOT, _DECIDING)
    assert edited(monkeypatch, tmp_path, name, old, new) != today


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("adapters/closed_form.py", "Return the adapter that", "Return an adapter that"),
        ("tuning/tune.py", "# What is kept back", "# Kept back"),
        ("tuning/choice.py", "\n\n\n", "\n\n\n\n"),
        # Not deciding.
        ("training/loop.py", "import ", "import  "),
        ("cli/tune.py", "_SHOWN = 12", "_SHOWN = 13"),
    ],
)
def test_words_and_other_code_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, old: str, new: str
) -> None:
    today = source_version(_ROOT, _DECIDING)
    assert edited(monkeypatch, tmp_path, name, old, new) == today


def test_it_is_that_of_the_root_alone_where_nothing_else_decides() -> None:
    alone = source_version(_ROOT, ())
    assert len(alone) == 64 and alone != source_version(_ROOT, _DECIDING)
    assert alone != source_version("ragcun_cache.tuning.choice", ())


def test_all_ways_to_import_a_module_are_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = {
        "root": "import ragcun_cache.a\nfrom ragcun_cache import b\nfrom ragcun_cache.c import x\n",
        "a": "def f():\n    from ragcun_cache.d import y\n",
        **{name: "z = 1\n" for name in "bcdx"},
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(ragcun_cache, "__file__", str(tmp_path / "__init__.py"))
    deciding = tuple(f"ragcun_cache.{name}" for name in "abcd")
    before = source_version.__wrapped__("ragcun_cache.root", deciding)
    for name in "abcdx":
        path = tmp_path / f"{name}.py"
        path.write_text(texts[name] + "more = 2\n")
        assert (source_version.__wrapped__("ragcun_cache.root", deciding) != before) == (name != "x")
        path.write_text(texts[name])
