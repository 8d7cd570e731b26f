"""The built-in collection: docstrings of the standard library and of some installed packages, so no download is needed.

Query: the summary of a docstring. Passage: the rest of it. Source files are parsed, never imported.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ragcun_cache.collections.collection import check_replaceable
from ragcun_cache.collections.layout import RECORD_FILE, is_collection, lock, new_folder, write_qrels, write_texts
from ragcun_cache.collections.reader import Texts
from ragcun_cache.files import write_json
from ragcun_cache.home import Home
from ragcun_cache.role import Role

PYDOCS = "pydocs"

PACKAGES = ("filelock", "huggingface_hub", "numpy", "polars", "pyarrow", "pydantic", "rich", "typer")
"""Runtime dependencies with prose in their docstrings; one that is not installed is left out."""

_SKIPPED_FOLDERS = {
    "__pycache__",
    "_vendor",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
}
_SUMMARY_WORDS = range(4, 41)
_PASSAGE_MIN_WORDS = 12
_PASSAGE_MAX_WORDS = 50
_MAX_PAIRS = 3000
_MAX_PAIRS_A_MODULE = 80
_MAX_PIECES = 230_000
_SPLIT_PERCENT = (("train", 70), ("dev", 85), ("test", 100))

_PARAGRAPH = re.compile(r"\n\s*\n")
_RULE = re.compile(r"^\s*[-=~^*]{3,}\s*$", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s+")
_CALL = re.compile(r"^[\w.]+\(")
_PIECE = re.compile(r"[^\W\d_]+|\d{1,3}|[^\w\s]|_")


@dataclass(frozen=True)
class _Pair:
    name: str
    """Where it stands: dotted module, a colon, the object; such as ``json.decoder:JSONDecoder.decode``."""
    summary: str
    rest: str

    @property
    def module(self) -> str:
        """The unit of the split: the module's first two names, such as ``numpy.linalg`` or ``argparse``."""
        return ".".join(self.name.partition(":")[0].split(".")[:2])

    @property
    def order(self) -> bytes:
        """A place in a fixed shuffle that does not depend on what else there is."""
        return hashlib.sha256(self.name.encode()).digest()


def _flat(text: str) -> str:
    return " ".join(text.split())


def _shorten(text: str) -> str:
    """Cut after the last sentence that ends within the allowed words; within a first sentence that is longer, there."""
    kept: list[str] = []
    for sentence in _SENTENCE_END.split(text):
        words = sentence.split()
        if len(kept) + len(words) > _PASSAGE_MAX_WORDS:
            break
        kept += words
    return " ".join(kept or text.split()[:_PASSAGE_MAX_WORDS])


def _pair(name: str, docstring: str) -> _Pair | None:
    """Return summary and rest of a docstring, or None if either says too little or the rest gives the summary away."""
    summary, *paragraphs = _PARAGRAPH.split(docstring.strip())
    summary = _flat(summary)
    prose = (_RULE.sub("", one) for one in paragraphs if not one.lstrip().startswith((">>>", "..")))
    rest = _shorten(_flat("\n".join(prose)))
    if len(summary.split()) not in _SUMMARY_WORDS or _CALL.match(summary) or ">>>" in summary:
        return None
    if len(rest.split()) < _PASSAGE_MIN_WORDS or summary.rstrip(".").casefold() in rest.casefold():
        return None
    return _Pair(name, summary, rest)


def _documented(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield (qualified name, docstring) of the classes, functions and methods in a body, without private ones."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            name = f"{prefix}{node.name}"
            if docstring := ast.get_docstring(node):
                yield name, docstring
            if isinstance(node, ast.ClassDef):
                yield from _documented(node.body, f"{name}.")


def _module_pairs(path: Path, module: str) -> Iterator[_Pair]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # Some packages ship templates or files for another Python.
    docstrings = dict(_documented(tree.body, ""))
    if of_module := ast.get_docstring(tree):
        docstrings[""] = of_module
    for name, docstring in docstrings.items():
        if pair := _pair(f"{module}:{name}", docstring):
            yield pair


def _source_roots() -> Iterator[tuple[Path, str]]:
    """Yield (folder, prefix of its modules) of the standard library and of each package that is installed."""
    yield Path(sysconfig.get_paths()["stdlib"]), ""
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        for folder in (found.submodule_search_locations or []) if found else []:
            yield Path(folder), f"{package}."


def _all_pairs() -> Iterator[_Pair]:
    for root, prefix in _source_roots():
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root)
            if not _SKIPPED_FOLDERS.intersection(inside.parts):
                dotted = ".".join(inside.with_suffix("").parts)
                yield from _module_pairs(path, (prefix + dotted).removesuffix(".__init__"))


def _pieces(text: str) -> int:
    """Estimate the number of word pieces: long words and identifiers fall apart."""
    return sum(1 + (len(piece) - 1) // 8 for piece in _PIECE.findall(text))


def _chosen_pairs() -> list[_Pair]:
    """Return the pairs in a fixed shuffle, none with the summary or the rest of an earlier one, within the caps."""
    chosen: list[_Pair] = []
    summaries: set[str] = set()
    rests: set[str] = set()
    of_module = Counter[str]()
    pieces = 0
    for pair in sorted(_all_pairs(), key=lambda one: one.order):
        summary, rest = pair.summary.casefold(), pair.rest.casefold()
        if summary in summaries or rest in rests or of_module[pair.module] == _MAX_PAIRS_A_MODULE:
            continue
        pieces += _pieces(pair.summary) + _pieces(pair.rest)
        if len(chosen) == _MAX_PAIRS or pieces > _MAX_PIECES:
            break
        summaries.add(summary)
        rests.add(rest)
        of_module[pair.module] += 1
        chosen.append(pair)
    return chosen


def _split_of(module: str) -> str:
    percent = int.from_bytes(hashlib.sha256(f"split {module}".encode()).digest()[:4], "big") % 100
    return next(split for split, below in _SPLIT_PERCENT if percent < below)


def _versions() -> dict[str, str]:
    installed = [package for package in PACKAGES if importlib.util.find_spec(package)]
    return {"python": platform.python_version()} | {one: importlib.metadata.version(one) for one in installed}


def make_pydocs(home: Home) -> Path:
    """Return the folder of ``pydocs`` below ``home.collections``; made if it is not there, else left as it is.

    About 3,000 pairs. The same versions of Python and the packages (kept in ``collection.json``) give the same bytes.
    Train, dev and test (70, 15, 15 %) are chosen by a hash of the module's first two names, so no module is in two.

    Raises:
        CollectionError: something that is no collection has that name.
    """
    folder = home.collections / PYDOCS
    with lock(folder):
        if is_collection(folder):
            return folder
        record = {"made_of": "docstrings", "versions": _versions()}
        check_replaceable(folder, record, "made_of")
        pairs = sorted(_chosen_pairs(), key=lambda pair: pair.name)
        blank = [""] * len(pairs)
        # Ids of the two roles differ, because evaluation drops a passage that has the id of its query.
        query_ids = [f"q/{pair.name}" for pair in pairs]
        passage_ids = [f"p/{pair.name}" for pair in pairs]
        with new_folder(folder) as partial:
            write_texts(partial, Role.QUERY, [Texts(query_ids, blank, [pair.summary for pair in pairs])])
            write_texts(partial, Role.PASSAGE, [Texts(passage_ids, blank, [pair.rest for pair in pairs])])
            for split, _ in _SPLIT_PERCENT:
                rows = [
                    (query_id, passage_id, 1)
                    for pair, query_id, passage_id in zip(pairs, query_ids, passage_ids, strict=True)
                    if _split_of(pair.module) == split
                ]
                write_qrels(partial, split, rows)
            write_json(partial / RECORD_FILE, record)
    return folder
