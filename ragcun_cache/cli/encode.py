"""``ragcun-cache encode``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def encode(
    dataset: Annotated[
        list[str], typer.Option(help="Collection: a registry name, `pydocs`, or a folder in BEIR layout. Repeatable.")
    ],
    pairs: Annotated[
        int | None, typer.Option(help="Encode only a sample of this many train pairs, and dev pairs beside them.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample.")] = 0,
    model: Annotated[
        str | None, typer.Option(help="A sentence-transformers model, by name or folder. Default: all-mpnet-base-v2.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the transformer: auto, fp32, bf16, fp16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    storage_dtype: Annotated[str, typer.Option(help="Of the stored vectors: float16, float32.")] = "float16",
    max_seq_length: Annotated[int | None, typer.Option(help="Tokens read of each text. Default: the model's.")] = None,
    query_prompt: Annotated[str | None, typer.Option(help="Put before every query. Default: the model's.")] = None,
    passage_prompt: Annotated[str | None, typer.Option(help="Put before every passage. Default: the model's.")] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(help="Padded tokens in one forward pass: more needs more memory.")
    ] = None,
    shard_rows: Annotated[int | None, typer.Option(help="Rows that become durable together.")] = None,
    vector_format: Annotated[
        str, typer.Option("--format", help="Of the vector files of a new cache: memmap, parquet.")
    ] = "memmap",
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """Encode the queries and passages of collections into verified caches; what is cached is never encoded again."""
    from ragcun_cache.cli.arguments import validated
    from ragcun_cache.collections import find_collection, sample_pairs
    from ragcun_cache.encoder import EncodeConfig, encode_collection
    from ragcun_cache.home import Home

    config = validated(
        EncodeConfig,
        model=model,
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
    home = Home.default()
    records: list[dict[str, Any]] = []
    for name in dataset:
        collection = find_collection(name, home)
        if pairs is not None:
            collection = sample_pairs(collection, pairs, seed, home)
        for report in encode_collection(collection, home, config):
            manifest = report.manifest
            share = manifest.truncated / manifest.rows if manifest.rows else 0.0
            records.append(
                {
                    "collection": collection.name,
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
                    "seconds": round(report.seconds, 3),
                }
            )
            if not as_json:
                done = "already complete"
                if report.encoded or report.copied:
                    done = f"{report.encoded:,} encoded, {report.copied:,} copied, {report.dropped:,} dropped"
                    done += f" in {report.seconds:,.1f} s"
                typer.echo(
                    f"{collection.name} {report.role}: {manifest.rows:,} rows, {done}; {manifest.tokens:,} tokens, "
                    f"{manifest.truncated:,} rows truncated ({share:.1%}), {manifest.vector_bytes / 1e6:,.1f} MB, "
                    f"{manifest.spec['precision']} → {report.folder}"
                )
    if as_json:
        typer.echo(json.dumps(records, indent=2))
