"""Encoding: our whole encode beside ``SentenceTransformer.encode``, as it comes and as fast as it can be set."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import PEERS, OurEncoder, PeerEncoder, PlainEncoder
from benchmarks.passages import some_texts
from benchmarks.peak import encoder_gflop, matmul_peak
from benchmarks.setting import Setting
from benchmarks.timing import ROUNDS, Timing, take_turns
from ragcun_cache.markdown import paragraphs, table
from ragcun_cache.role import Role

TITLE = "Encoding"
PACKAGES = ("numpy", "torch", "transformers", "sentence-transformers", "openvino")

_DRAWS = (("scifact", Role.PASSAGE, 32), ("msmarco-12k", Role.PASSAGE, 100), ("msmarco-12k", Role.QUERY, 320))
_PLAIN, _BF16, _OPENVINO = "SentenceTransformer.encode", "the same in bf16", "the same on OpenVINO in bf16"
_OURS = "ours"
_Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def run(setting: Setting) -> str:
    """Return the section: tokens a second, ratios, how near the vectors are, and the share of the machine's peak."""
    home = setting.home
    ours, int8 = OurEncoder(home), OurEncoder(home, precision="int8")
    with ExitStack() as stack:
        ways: dict[str, _Encode] = {
            _PLAIN: PlainEncoder(home).encode,
            _BF16: PlainEncoder(home, "bfloat16").encode,
            _OURS: ours.encode,
            f"ours, --precision int8 ({int8.model.choice.backend})": int8.encode,
        }
        onnx: _Encode | None = None
        if PEERS.exists():
            hint = {"INFERENCE_PRECISION_HINT": "bf16"}
            ways[_OPENVINO] = stack.enter_context(PeerEncoder(home, "openvino", ov_config=hint)).encode
            onnx = stack.enter_context(PeerEncoder(home, "onnx")).encode
        parts = [_texts_part(some_texts(home, *draw), ours, ways, onnx) for draw in _DRAWS]
    return paragraphs(_about(ours, onnx is not None), *(block for part in parts for block in part))


def _about(ours: OurEncoder, with_peers: bool) -> str:
    lacking = (
        "" if with_peers else " Its OpenVINO and ONNX backends were not installed (`make bench-encode` does that)."
    )
    return (
        f"The real all-mpnet-base-v2, models loaded beforehand, medians of {ROUNDS} rounds. Ours is the whole encode "
        f"of a collection of these texts ({ours.name}, as `auto` chose): reading, tokenising, forward passes, "
        "hashing, writing and fsync. The peer is `SentenceTransformer(folder).encode(texts)`, which sorts by length: "
        f"with nothing set (float32), in bf16, and with its own backends.{lacking} Tokens are those of the texts, "
        "padding not counted. Cosines are to the float32 vectors of the peer. The peak is the best rate of "
        "`torch.nn.functional.linear` in the same precision, measured just before and after."
    )


def _texts_part(
    drawn: tuple[list[str], str], ours: OurEncoder, ways: dict[str, _Encode], onnx: _Encode | None
) -> list[str]:
    texts, drawn_from = drawn
    n_tokens = ours.tokens(texts)
    tokens = int(n_tokens.sum())
    precision = ours.model.choice.precision
    vectors: dict[str, NDArray[np.float32]] = {}

    def encode(way: str) -> None:
        vectors[way] = ways[way](texts)

    peak = matmul_peak(precision)
    timings = take_turns({way: partial(encode, way) for way in ways})
    peak = max(peak, matmul_peak(precision))
    # A vector that was normalised in bf16 is not of unit length.
    unit = {way: found / np.linalg.norm(found, axis=1, keepdims=True) for way, found in vectors.items()}
    cosine = {way: float(np.einsum("nd,nd->n", found, unit[_PLAIN]).min()) for way, found in unit.items()}
    pad_share = ours.phases.pad_share
    own = timings[_OURS]
    best = min({_PLAIN, _BF16, _OPENVINO} & ways.keys(), key=lambda way: timings[way].spread.median)
    config = json.loads((ours.model.weights.folder / "config.json").read_text())
    reached = own.rate(encoder_gflop(config, n_tokens))
    phases = ours.phases
    busy = {"reading": phases.read, "tokenising": phases.tokenise, "forward": phases.forward, "writing": phases.write}
    wall = own.seconds[-1]
    return [
        f"{len(texts):,} {drawn_from}, {tokens:,} tokens; ours spends {pad_share:.1%} of its tokens on padding:",
        table(
            ["", "tokens/s", "÷ default", "÷ bf16", f"÷ best of the peer ({_short(best)})", "smallest cosine"],
            [_row(way, timing, timings, tokens, best, cosine[way]) for way, timing in timings.items()],
        ),
        f"Ours reaches {reached} GFLOP/s of a peak of {peak:,.0f}: {reached.median / peak:.0%}. Phases of its last "
        f"round, which overlap, of {wall:.2f} s: "
        + ", ".join(f"{phase} {seconds:.2f} s" for phase, seconds in busy.items())
        + "."
        + ("" if onnx is None else _once(onnx, texts, tokens)),
    ]


def _once(onnx: _Encode, texts: list[str], tokens: int) -> str:
    onnx(texts[:2])
    started = time.perf_counter()
    onnx(texts)
    rate = tokens / (time.perf_counter() - started)
    return f" The peer on ONNX Runtime (float32) is far behind, so it ran once: {rate:,.0f} tokens/s."


def _row(way: str, timing: Timing, timings: dict[str, Timing], tokens: int, best: str, cosine: float) -> list[str]:
    ratios = [str(timings[peer].over(timing)) for peer in (_PLAIN, _BF16, best)]
    return [way, str(timing.rate(tokens)), *ratios, f"{cosine:.5f}"]


def _short(way: str) -> str:
    return way.removeprefix("the same ")
