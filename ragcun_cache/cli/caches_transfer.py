"""``ragcun-cache caches convert | export | import | publish``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def convert_cache(
    folder: Annotated[Path, typer.Argument(help="A cache, as `caches ls` prints it.")],
    to: Annotated[str, typer.Option(help="Format of the vector files: memmap, parquet.")],
    as_json: AsJson = False,
) -> None:
    """Change the format of a cache's vector files in place; no bit of a vector changes."""
    from ragcun_cache.cache.convert import convert
    from ragcun_cache.cache.layout import VECTOR_SUFFIXES
    from ragcun_cache.errors import unknown_choice

    if to not in VECTOR_SUFFIXES:
        raise unknown_choice("vector format", to, VECTOR_SUFFIXES)
    turned = convert(folder, to)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "format": to, "converted": turned}))
    else:
        typer.echo(f"{turned:,} shards converted → {to}" if turned else f"already {to}")


def export_cache(
    cache: Annotated[str, typer.Argument(help="A cache: a folder as `caches ls` prints it, or a URL.")],
    to: Annotated[str, typer.Option(help="npy, parquet, safetensors, hf-dataset.")],
    out: Annotated[Path, typer.Option(help="The file to write, or the folder for hf-dataset.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the vectors of a cache, their ids and where they come from as files for other tools."""
    from ragcun_cache.cache import EmbeddingCache
    from ragcun_cache.cache.export import EXPORT_SUFFIXES, export
    from ragcun_cache.errors import unknown_choice

    if to not in EXPORT_SUFFIXES:
        raise unknown_choice("export format", to, EXPORT_SUFFIXES)
    opened = EmbeddingCache(cache if "://" in cache else Path(cache))
    written = export(opened, to, out, force=force)
    if as_json:
        typer.echo(json.dumps([str(path) for path in written]))
    else:
        typer.echo("\n".join(str(path) for path in written))


def import_cache(
    dataset: Annotated[str, typer.Option(help="Collection whose texts they are of: a name, or a folder.")],
    role: Annotated[str, typer.Option(help="query, passage.")],
    vectors: Annotated[
        Path, typer.Option(help=".npy, .parquet, a folder of .parquet files, or one of Dataset.save_to_disk.")
    ],
    model_id: Annotated[str, typer.Option(help="What computed them, such as openai/text-embedding-3-small.")],
    ids: Annotated[Path | None, typer.Option(help="Ids of a .npy file: .json list, or text, one a line.")] = None,
    provenance: Annotated[
        list[str] | None,
        typer.Option(help="key=value: what else the vectors depend on, the same for both roles. Repeatable."),
    ] = None,
    prompt: Annotated[str, typer.Option(help="What was put before every text of this role.")] = "",
    storage_dtype: Annotated[str, typer.Option(help="Of the stored vectors: float16, float32.")] = "float16",
    id_column: Annotated[str, typer.Option(help="Of a table.")] = "id",
    vector_column: Annotated[str, typer.Option(help="Of a table.")] = "vector",
    vector_dtype: Annotated[
        str | None, typer.Option(help="Of vectors that are bytes and do not say: float16, float32, float64.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take vectors that something else computed into a cache that training and evaluation work with."""
    from ragcun_cache.cache import EmbeddingCache
    from ragcun_cache.cache.imports import ImportConfig, import_vectors
    from ragcun_cache.cli.arguments import validated
    from ragcun_cache.collections import find_collection
    from ragcun_cache.errors import unknown_choice
    from ragcun_cache.home import Home
    from ragcun_cache.role import Role

    if role not in list(Role):
        raise unknown_choice("role", role, list(Role))
    config = validated(
        ImportConfig,
        model_id=model_id,
        prompt=prompt,
        settings=_settings(provenance or []),
        storage_dtype=storage_dtype,
        id_column=id_column,
        vector_column=vector_column,
        vector_dtype=vector_dtype,
    )
    home = Home.default()
    layout = import_vectors(find_collection(dataset, home), Role(role), vectors, ids, config, home.caches)
    manifest = EmbeddingCache(layout.folder).manifest
    if as_json:
        record = {"folder": str(layout.folder), "rows": manifest.rows, "dim": manifest.dim, "encoder": manifest.encoder}
        typer.echo(json.dumps(record))
    else:
        typer.echo(
            f"{manifest.collection} {manifest.role}: {manifest.rows:,} × {manifest.dim} {manifest.dtype}, "
            f"{model_id}, encoder {manifest.encoder} → {layout.folder}"
        )


def _settings(pairs: list[str]) -> dict[str, str]:
    from ragcun_cache.errors import ConfigError

    settings: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key or key in settings:
            raise ConfigError("--provenance is not valid", expected="key=value, each key once", found=pair)
        settings[key] = value
    return settings


def publish_cache(
    folder: Annotated[Path, typer.Argument(help="A cache, as `caches ls` prints it.")],
    url: Annotated[str, typer.Argument(help="The folder it becomes: s3://bucket/path, gs://…, or a mounted share.")],
    as_json: AsJson = False,
) -> None:
    """Copy a finished cache to a place where others read it; interrupted, the same command goes on."""
    from ragcun_cache.cache.publish import publish

    report = publish(folder, url)
    if as_json:
        from dataclasses import asdict

        typer.echo(json.dumps(asdict(report)))
    else:
        typer.echo(
            f"{report.sent:,} files sent ({report.sent_bytes / 1e6:,.1f} MB), {report.kept:,} were there → {report.url}"
        )
