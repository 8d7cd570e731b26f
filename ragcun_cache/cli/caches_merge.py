"""``ragcun-cache caches merge``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def merge_parts(
    dataset: Annotated[
        list[str],
        typer.Option(
            help="Collection whose parts to merge: its name as `encode` prints it. Repeat it, or divide by commas."
        ),
    ],
    keep: Annotated[bool, typer.Option("--keep", help="Leave the parts where they are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Put the parts together that `encode --part i/n` made, into the cache that one encode would have made."""
    from ragcun_cache.cache.command import encode_command
    from ragcun_cache.cache.layout import PARTS, collection_folder
    from ragcun_cache.cache.merge import find_splits, merge
    from ragcun_cache.cache.pair import list_caches
    from ragcun_cache.collections.locate import name_of
    from ragcun_cache.collections.registry import each_name
    from ragcun_cache.errors import CacheError
    from ragcun_cache.home import Home

    caches = Home.default().caches
    records: list[dict[str, Any]] = []
    for name in each_name(dataset):
        splits = find_splits(caches, name) or find_splits(caches, name_of(Path(name)))
        if not splits:
            whole = [found for _, found in list_caches(caches, name) or list_caches(caches, name_of(Path(name)))]
            raise CacheError(
                f"{name} has no parts to merge",
                where=caches / collection_folder(name) / PARTS,
                fix=f"{encode_command(name, whole, part='1/2')}, and so on",
            )
        for split in splits:
            manifest = merge(split, keep=keep, dataset=name)
            record = {
                "collection": manifest.collection,
                "role": str(manifest.role),
                "folder": str(split.whole.folder),
                "parts": split.of,
                "rows": manifest.rows,
                "shards": len(manifest.shards),
            }
            records.append(record)
            if not as_json:
                made = f"{manifest.rows:,} rows in {len(manifest.shards):,} shards, of {split.of} parts"
                typer.echo(f"{manifest.collection} {manifest.role}: {made} → {split.whole.folder}")
    if as_json:
        typer.echo(json.dumps(records, indent=2))
