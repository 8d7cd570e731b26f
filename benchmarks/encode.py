"""Encoding: ours beside ``SentenceTransformer.encode`` as it comes, on the same passages."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.models import OurEncoder, PlainEncoder
from benchmarks.page import paragraphs, table
from benchmarks.passages import some_passages
from benchmarks.setting import Setting
from benchmarks.timing import take_turns

TITLE = "Encoding"
PACKAGES = ("numpy", "torch", "transformers", "sentence-transformers")

_PASSAGES = 128
_ROUNDS = 3
_PEER = "SentenceTransformer.encode"


def run(setting: Setting) -> str:
    """Return the section: tokens a second, and how near the vectors are."""
    texts = some_passages(setting.home, _PASSAGES)
    auto, fp32, plain = OurEncoder(setting.home), OurEncoder(setting.home, precision="fp32"), PlainEncoder(setting.home)
    ways = {
        _PEER: plain.encode,
        "ours, --precision fp32": fp32.encode,
        f"ours, --precision auto ({auto.model.choice.precision})": auto.encode,
    }
    peer_nd = plain.encode(texts)
    cosines = {name: float(np.min(np.sum(encode(texts) * peer_nd, axis=1))) for name, encode in ways.items()}
    timings = take_turns({name: partial(encode, texts) for name, encode in ways.items()}, rounds=_ROUNDS)
    tokens = fp32.tokens(texts)
    about = (
        f"{_PASSAGES} passages of `pydocs`, {tokens:,} tokens, the real all-mpnet-base-v2, model loaded beforehand, "
        f"medians of {_ROUNDS}. The peer is `SentenceTransformer(folder).encode(texts)` with nothing set (float32, "
        "batches of 32)."
    )
    return paragraphs(
        about,
        table(
            ["", "tokens/s", "speed ÷ peer", "smallest cosine to peer"],
            [
                [name, timing.rate(tokens), timings[_PEER].over(timing), f"{cosines[name]:.6f}"]
                for name, timing in timings.items()
            ],
        ),
    )
