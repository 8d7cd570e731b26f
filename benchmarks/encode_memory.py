"""Memory of an encode: short passages by the hundred thousand, through the whole pipeline, by a model that is fake."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.alone import run_alone
from benchmarks.fake_encoder import FakeModel
from benchmarks.setting import Setting
from ragcun_cache.collections import Collection
from ragcun_cache.encoder.engines.local import LocalEngine
from ragcun_cache.encoder.pipeline import EncodeReport, encode_role
from ragcun_cache.home import Home
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.role import Role

TITLE = "Memory of an encode"
PACKAGES = ("numpy", "pyarrow", "orjson")

_ROWS = 1_000_000
_WORDS = ("the", "of", "and", "to", "in", "that", "for", "was", "with", "not", "his", "are", "this", "have", "from")


def run(setting: Setting) -> str:
    """Return the section: peak memory over a corpus and over one of a quarter of its size."""
    rows = setting.rows or _ROWS
    lines, peaks = [], []
    for count in (rows // 4, rows):
        folder = setting.scratch / str(count)
        write_passages(folder, count)
        alone = run_alone(encode_passages, folder)
        report, peak = alone.result, alone.peak_bytes
        peaks.append(peak)
        phases = report.phases
        times = [f"{one:.1f}" for one in (phases.read, phases.tokenise, phases.forward, phases.write, report.seconds)]
        lines.append([f"{count:,}", f"{report.manifest.tokens:,}", f"{peak / 1e9:.2f}", *times])
    about = (
        "Short passages through the whole encode (read, tokenise, batch, hash, write), each once in a process of "
        "its own. Tokeniser and model are fake and cost next to nothing, so this is what the encode itself "
        "takes; the weights of a real model come on top. Phases overlap."
    )
    columns = ["passages", "tokens", "peak memory, GB", "read, s", "tokenise, s", "forward, s", "write, s", "all, s"]
    more = f"{rows:,} passages take {(peaks[1] - peaks[0]) / 1e6:,.0f} MB more than {rows // 4:,}."
    return paragraphs(about, table(columns, lines), more)


def write_passages(folder: Path, rows: int) -> None:
    """Write a corpus of ``rows`` passages of 10 to 30 words, the same ones every time."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    with (folder / "corpus.jsonl").open("w") as corpus:
        for row in range(rows):
            words = [_WORDS[word] for word in random.integers(0, len(_WORDS), random.integers(10, 31)).tolist()]
            corpus.write(f'{{"_id": "{row}", "title": "", "text": "{" ".join(words)} {row}"}}\n')


def encode_passages(folder: Path) -> EncodeReport:
    """Encode the corpus in ``folder`` into ``folder/caches``."""
    collection = Collection("synthetic", folder)
    engine = LocalEngine(FakeModel())
    content = collection.content_sha256(Role.PASSAGE)
    return encode_role(collection, Role.PASSAGE, Home(folder), engine, content)
