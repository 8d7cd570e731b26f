"""Where the figures of the page come from, read off the results, the heads and the caches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ragcun_cache.cache import list_caches
from ragcun_cache.cache.manifest import Manifest
from ragcun_cache.evaluation.origin import encoders, listed, made, training
from ragcun_cache.files import sha256_json
from ragcun_cache.home import Home
from ragcun_cache.report.provenance import ranges
from reproduction.rows import RAW, Row, SeedRun

_SHORT = 12


def provenance(rows: Mapping[str, Row], home: Home) -> str:
    """Return encoder, training, machines, versions, commits, dates, seeds, vectors and seconds, as a Markdown list."""
    runs = [run for row in rows.values() for run in row.runs.values()]
    if not runs:
        return "There is no result yet."
    results = [result for run in runs for result in run.results]
    trained = [run.head.provenance for run in runs if run.head is not None]
    settings = {result.setting.sha256: result for result in results}.values()
    dates = [result.date for result in results]
    facts = {
        "encoder": encoders(results, home),
        "trained on": training(results, home),
        "machine": [listed(result.machine) for result in results],
        "versions": [listed(result.versions) for result in results],
        "commit of training": [about.get("commit") or "not from a checkout" for about in trained],
        "commit of evaluation": [result.commit or "not from a checkout" for result in results],
        "threads of training": [str(about.get("threads")) for about in trained],
        "evaluated": [f"{min(dates)} to {max(dates)}"],
        "seeds": [f"{ranges(seeds)}: {', '.join(labels)}" for seeds, labels in _by_seeds(rows)],
        "judgements": [
            f"{one.setting.collection}/{one.setting.split}, {one.counts.judged} queries, "
            f"sha256 {one.setting.qrels_sha256[:_SHORT]}"
            for one in settings
        ],
        "vectors": [_vectors(manifest) for manifest in _caches(runs, home)],
        "seconds": [_seconds(runs)],
    }
    lines = []
    for name, values in facts.items():
        first, *others = dict.fromkeys(values) or ["unknown"]
        lines += [f"- {name}:", *(f"  - {value}" for value in (first, *others))] if others else [f"- {name}: {first}"]
    return "\n".join(lines)


def _by_seeds(rows: Mapping[str, Row]) -> list[tuple[list[int], list[str]]]:
    """Return which rows were done with which seeds."""
    found: dict[tuple[int, ...], list[str]] = {}
    for row in rows.values():
        if row.label != RAW and row.runs:
            found.setdefault(tuple(sorted(row.runs)), []).append(f"`{row.label}`")
    return [(list(seeds), labels) for seeds, labels in found.items()]


def _caches(runs: list[SeedRun], home: Home) -> Iterator[Manifest]:
    """Yield the manifest of every cache that the runs were trained or evaluated on, as far as it is still there."""
    used = {
        key
        for run in runs
        for result in run.results
        for key in (
            (result.setting.query_fingerprint, result.setting.query_content_sha256),
            (result.setting.passage_fingerprint, result.setting.passage_content_sha256),
        )
    }
    for run in runs:
        caches = run.head.provenance.get("caches") if run.head else None
        for role in ("query", "passage"):
            if caches and role in caches:
                used.add((caches[role]["fingerprint"], caches[role]["content_sha256"]))
    for _, manifest in list_caches(home.caches):
        if (manifest.fingerprint, manifest.content_sha256) in used:
            yield manifest


def _vectors(manifest: Manifest) -> str:
    spec, source = manifest.spec, manifest.provenance.get("source")
    origin = f"model {spec.get('model_id')}, {made(spec)}"
    if source:
        origin += f", from {source['name']} (sha256 {source['sha256'][:_SHORT]})"
    return (
        f"{manifest.collection}, {manifest.role} {manifest.fingerprint}, file {manifest.content_sha256[:_SHORT]}: "
        f"{manifest.rows} × {manifest.dim} {manifest.dtype}, {origin}"
    )


def _seconds(runs: list[SeedRun]) -> str:
    """Return the seconds of all runs. A run that is the beginning of a longer one has its epochs, which count once."""
    heads = {run.head.folder: run for run in runs if run.head is not None}
    epochs = {}
    for run in heads.values():
        kind = (
            {name: value for name, value in run.head.provenance["train"].items() if name != "epochs"}
            if run.head
            else {}
        )
        for row in run.epochs:
            timed = (row.get("train_seconds") or 0.0, row.get("measure_seconds") or 0.0)
            epochs[sha256_json(kind), row["epoch"], timed] = timed
    training, measuring = (sum(timed[place] for timed in epochs.values()) for place in (0, 1))
    evaluating = sum(result.seconds for run in heads.values() for result in run.results)
    return (
        f"{training:,.0f} training, {measuring:,.0f} measuring after epochs, {evaluating:,.0f} evaluating; summed over "
        f"{len(heads)} runs, of which several may have gone on at a time"
    )
