"""``ragcun-cache encode``."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ragcun_cache.encoder import EncodeReport
    from ragcun_cache.encoder.probe import Estimate


def encode(
    dataset: Annotated[
        list[str],
        typer.Option(
            help="Collection: a registry name, `pydocs`, or a folder in BEIR layout. Repeat it, or divide by commas."
        ),
    ],
    pairs: Annotated[
        int | None, typer.Option(help="Encode only a sample of this many train pairs, and dev pairs beside them.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "--pairs-seed", min=0, help="Seed of the sample.")] = 0,
    model: Annotated[
        str | None, typer.Option(help="A sentence-transformers model, by name or folder. Default: all-mpnet-base-v2.")
    ] = None,
    model_id: Annotated[
        str | None, typer.Option(help="Name of a model in a folder, for caches and tables. Default: the folder's.")
    ] = None,
    backend: Annotated[str, typer.Option(help="What runs the transformer: auto, openvino, torch.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the transformer: auto, fp32, bf16, fp16, int8.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    storage_dtype: Annotated[str, typer.Option(help="Of the stored vectors: float16, float32.")] = "float16",
    max_seq_length: Annotated[int | None, typer.Option(help="Tokens read of each text. Default: the model's.")] = None,
    query_prompt: Annotated[str | None, typer.Option(help="Put before every query. Default: the model's.")] = None,
    passage_prompt: Annotated[str | None, typer.Option(help="Put before every passage. Default: the model's.")] = None,
    batch_tokens: Annotated[
        int | None,
        typer.Option(help="Padded tokens in one forward pass: more needs more memory. Default: 1280, on a GPU 65536."),
    ] = None,
    shard_rows: Annotated[
        int | None,
        typer.Option(
            help="Rows that become durable together. Default: 512 to 65536, so that there are up to 64 shards."
        ),
    ] = None,
    vector_format: Annotated[
        str, typer.Option("--format", help="Of the vector files of a new cache: memmap, parquet.")
    ] = "memmap",
    engine: Annotated[str, typer.Option(help="Where the model runs: local, ray.")] = "local",
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that run the model. Default: one, or one a GPU where there are several."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Cores of each worker on a CPU. Default: its share of all.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster. Default: a running one, else one that ends with the encode.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="i/n: encode only this part of the shards; `caches merge` joins the parts.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Encode 500 rows to find out what all would cost; cache nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Encode the queries and passages of collections into verified caches; what is cached is never encoded again."""
    from ragcun_cache.cache.part import Part
    from ragcun_cache.cli.arguments import validated
    from ragcun_cache.collections import find_collection, sample_pairs
    from ragcun_cache.collections.registry import each_name
    from ragcun_cache.encoder import EncodeConfig, EngineConfig, encode_collection
    from ragcun_cache.encoder.probe import estimate_encode
    from ragcun_cache.errors import ConfigError
    from ragcun_cache.home import Home

    config = validated(
        EncodeConfig,
        model=model,
        model_id=model_id,
        backend=backend,
        precision=precision,
        device=device,
        storage_dtype=storage_dtype,
        max_seq_length=max_seq_length,
        query_prompt=query_prompt,
        passage_prompt=passage_prompt,
        batch_tokens=batch_tokens,
        shard_rows=shard_rows,
        format=vector_format,
    )
    where = validated(EngineConfig, engine=engine, workers=workers, threads=threads, ray_address=ray_address)
    chosen = Part.parse(part) if part is not None else None
    if dry_run and where != EngineConfig():
        raise ConfigError(
            "--dry-run measures one process on this machine", fix="leave out --engine, --workers, --threads"
        )
    if device not in ("auto", "cpu"):
        from ragcun_cache.device import resolve_device

        resolve_device(device)  # Refused before anything is downloaded.
    home = Home.default()
    records: list[dict[str, Any]] = []
    for name in each_name(dataset):
        collection = find_collection(name, home)
        if pairs is not None:
            collection = sample_pairs(collection, pairs, seed, home)
        if dry_run:
            estimate = estimate_encode(collection, home, config, chosen)
            records.append(estimate.to_dict())
            if not as_json:
                typer.echo(_estimate_lines(estimate))
            continue
        # Ray tells of lost workers on stdout, which is for results.
        with redirect_stdout(sys.stderr) if engine == "ray" else nullcontext():
            reports = encode_collection(collection, home, config, where, chosen)
        for report in reports:
            records.append(_record(collection.name, report))
            if not as_json:
                typer.echo(_lines(collection.name, report))
    if as_json:
        typer.echo(json.dumps(records, indent=2))


def _estimate_lines(estimate: Estimate) -> str:
    lines = []
    for role in estimate.roles:
        line = f"{estimate.collection} {role.role}: {role.rows:,} rows"
        line += f", {role.there:,} encoded already" if role.there else ""
        line += f", {role.to_copy:,} to copy" if role.to_copy else ""
        line += f", {role.to_encode:,} to encode: {role.tokens:,} tokens, {role.truncated_share:.1%} truncated, "
        lines.append(line + f"{role.bytes / 1e6:,.1f} MB to write")
    if not estimate.probed_rows:
        return "\n".join([*lines, f"{estimate.collection}: nothing to encode"])
    about = f"{estimate.backend} {estimate.precision} on {estimate.device}, {estimate.tokens_per_second:,.0f} tokens/s"
    lines.append(
        f"{estimate.collection}: {estimate.seconds / 3600:,.3f} hours ± {estimate.error:.0%} "
        f"({estimate.seconds:,.0f} s) on this machine: {about}, {estimate.pad_share:.1%} padding; "
        f"{estimate.probed_rows:,} rows probed in {estimate.probe_seconds:,.0f} s"
    )
    return "\n".join(lines)


def _record(collection: str, report: EncodeReport) -> dict[str, Any]:
    manifest = report.manifest
    return {
        "collection": collection,
        "role": str(report.role),
        "folder": str(report.folder),
        "encoder": manifest.encoder,
        "rows": manifest.rows,
        "encoded": report.encoded,
        "copied": report.copied,
        "dropped": report.dropped,
        "tokens": manifest.tokens,
        "truncated": manifest.truncated,
        "bytes": manifest.vector_bytes,
        "backend": manifest.spec["backend"],
        "precision": manifest.spec["precision"],
        "reason": report.reason,
        "seconds": round(report.seconds, 3),
        "phases": report.phases.to_dict(),
    }


def _lines(collection: str, report: EncodeReport) -> str:
    manifest, phases = report.manifest, report.phases
    share = manifest.truncated / manifest.rows if manifest.rows else 0.0
    done = "already complete"
    if report.encoded or report.copied:
        done = f"{report.encoded:,} encoded, {report.copied:,} copied, {report.dropped:,} dropped"
        done += f" in {report.seconds:,.1f} s"
    line = (
        f"{collection} {report.role}: {manifest.rows:,} rows, {done}; {manifest.tokens:,} tokens, "
        f"{manifest.truncated:,} rows truncated ({share:.1%}), {manifest.vector_bytes / 1e6:,.1f} MB, "
        f"{manifest.spec['backend']} {manifest.spec['precision']} → {report.folder}"
    )
    if prompt := manifest.spec.get("prompt"):
        line += f"\n  prompt: {prompt!r} before every {report.role}"
    if report.reason:
        line += f"\n  chosen: {report.reason}"
    if report.encoded:
        speed = phases.tokens / report.loop_seconds
        line += (
            f"\n  read {phases.read:,.1f} s, load model {phases.load:,.1f} s, tokenise {phases.tokenise:,.1f} s, "
            f"forward {phases.forward:,.1f} s, write {phases.write:,.1f} s (they overlap); "
            f"{speed:,.0f} tokens/s, {phases.pad_share:.1%} of all tokens were padding"
        )
    return line
