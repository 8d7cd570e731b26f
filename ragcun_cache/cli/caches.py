"""``ragcun-cache caches``: looking at cached vectors, checking, mending and clearing them."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcun_cache.cli.caches_merge import merge_parts
from ragcun_cache.cli.caches_transfer import convert_cache, export_cache, import_cache, publish_cache

if TYPE_CHECKING:
    from ragcun_cache.cache import CacheLayout, Damage, Manifest
    from ragcun_cache.collections import Collection
    from ragcun_cache.encoder.frozen import FrozenModel

_log = logging.getLogger(__name__)

app = typer.Typer(no_args_is_help=True, help="Check, import, export, convert, merge, publish, clear caches.")
app.command("convert")(convert_cache)
app.command("export")(export_cache)
app.command("import")(import_cache)
app.command("merge")(merge_parts)
app.command("publish")(publish_cache)

Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Names = Annotated[list[str] | None, typer.Argument(help="Folders of caches, or names of collections. Default: all.")]


def _is_cache(folder: Path) -> bool:
    """Whether the folder has a manifest, be it only the spare one."""
    from ragcun_cache.cache import CacheLayout

    layout = CacheLayout(folder)
    return layout.manifest.exists() or layout.manifest_copy.exists()


def _layouts(names: list[str] | None) -> list[CacheLayout]:
    """Return where the caches are that ``names`` name.

    Raises:
        CacheError: a name names none.
    """
    from ragcun_cache.cache import CacheLayout
    from ragcun_cache.cache.pair import folder_pattern
    from ragcun_cache.errors import CacheError
    from ragcun_cache.home import Home

    root = Home.default().caches
    folders: list[Path] = []
    for name in names if names else ["*"]:
        folder = Path(name)
        found = [folder] if _is_cache(folder) else []
        found = found or sorted(filter(_is_cache, root.glob(f"{folder_pattern(name if names else None)}/*")))
        if names and not found:
            raise CacheError(f"no cache {name!r}", where=root, fix="ragcun-cache caches ls")
        folders += found
    return list(map(CacheLayout, dict.fromkeys(folders)))


def find_caches(names: list[str] | None) -> list[tuple[CacheLayout, Manifest]]:
    """Return the caches that ``names`` name, with manifests read from their spare copies where need be.

    One whose manifest cannot be read is logged, and the others are returned.

    Raises:
        CacheError: a name names none, or the manifest of none can be read.
    """
    from ragcun_cache.cache.verify import sound_manifest
    from ragcun_cache.errors import CacheError

    found: list[tuple[CacheLayout, Manifest]] = []
    wrecked: list[CacheError] = []
    for layout in _layouts(names):
        try:
            found.append((layout, sound_manifest(layout.folder)))
        except CacheError as error:
            wrecked.append(error)
    if wrecked and not found:
        raise wrecked[0]
    for one in wrecked:
        _log.warning("a cache is left out: %s", one)
    return found


def _record(layout: CacheLayout, manifest: Manifest) -> dict[str, Any]:
    from ragcun_cache.cache.gc import folder_bytes
    from ragcun_cache.cache.pair import last_used

    return {
        "collection": manifest.collection,
        "role": str(manifest.role),
        "rows": manifest.rows,
        "total_rows": manifest.total_rows,
        "complete": manifest.complete,
        "dim": manifest.dim,
        "dtype": manifest.dtype,
        "format": manifest.format,
        "bytes": folder_bytes(layout.folder),
        "model": manifest.spec.get("model_id"),
        "backend": manifest.spec.get("backend"),
        "precision": manifest.spec.get("precision"),
        "prompt": manifest.spec.get("prompt"),
        "encoder": manifest.encoder,
        "fingerprint": manifest.fingerprint,
        "last_used": datetime.fromtimestamp(last_used(layout), UTC).isoformat(timespec="seconds"),
        "folder": str(layout.folder),
    }


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"


@app.command("ls")
def list_all(names: Names = None, as_json: Json = False) -> None:
    """List caches: whose vectors, of which encoder, how many, complete or not, when last used."""
    records = [_record(layout, manifest) for layout, manifest in find_caches(names)]
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    if not records:
        typer.echo("no caches yet: ragcun-cache encode --dataset pydocs")
    for one in records:
        state = "complete" if one["complete"] else f"{one['rows']:,} of {one['total_rows']:,} rows"
        prompt = f"prompt {one['prompt']!r}, cache {one['fingerprint']}, " if one["prompt"] else ""
        typer.echo(
            f"{one['collection']} {one['role']}: {one['rows']:,} × {one['dim']} {one['dtype']} {one['format']}, "
            f"{_size(one['bytes'])}, {state}, {one['model']} {one['backend']} {one['precision']}, "
            f"{prompt}encoder {one['encoder']}, used {one['last_used'][:10]} → {one['folder']}"
        )


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Folder of a cache, or name of a collection.")], as_json: Json = False
) -> None:
    """Print everything that the manifest says: spec, provenance, totals."""
    records = [
        {
            "folder": str(layout.folder),
            "rows": manifest.rows,
            "tokens": manifest.tokens,
            "truncated": manifest.truncated,
            "norm_min": min((shard.norm_min for shard in manifest.shards), default=None),
            "norm_max": max((shard.norm_max for shard in manifest.shards), default=None),
            "n_shards": len(manifest.shards),
            **manifest.model_dump(mode="json", exclude={"shards"}),
        }
        for layout, manifest in find_caches([name])
    ]
    if as_json:
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    for record in records:
        typer.echo(record["folder"])
        for key, value in record.items():
            lines = value.items() if isinstance(value, dict) else [("", value)]
            for inner, text in lines:
                typer.echo(f"  {f'{key}.{inner}' if inner else key}: {text}")


@app.command()
def du(names: Names = None, as_json: Json = False) -> None:
    """Say what takes how much of the disk, the largest first."""
    records = [_record(layout, manifest) for layout, manifest in find_caches(names)]
    records.sort(key=lambda one: -one["bytes"])
    total = sum(one["bytes"] for one in records)
    if as_json:
        keys = ("folder", "bytes")
        typer.echo(json.dumps({"total": total, "caches": [{k: one[k] for k in keys} for one in records]}, indent=2))
        return
    for one in records:
        typer.echo(f"{_size(one['bytes']):>12}  {one['folder']}")
    typer.echo(f"{_size(total):>12}  in {len(records)} caches")


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="Folder of a cache.")],
    second: Annotated[Path, typer.Argument(help="Folder of another.")],
    as_json: Json = False,
) -> None:
    """Say in which fields of their specs two caches differ, and how far their vectors agree where ids are shared."""
    from ragcun_cache.cache import EmbeddingCache
    from ragcun_cache.cache.compare import compare_caches

    found = compare_caches(EmbeddingCache(first), EmbeddingCache(second))
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    for line in found.differences:
        typer.echo(line)
    if not found.differences:
        typer.echo("same spec, same collection file")
    agreement = "" if found.min_cosine is None else f", cosine at least {found.min_cosine:.6f}"
    typer.echo(f"{found.shared_ids:,} ids in both, {found.identical_rows:,} vectors bit-identical{agreement}")


def _collection(name: str) -> Collection | None:
    """Return the collection if it is on this machine; checking a cache never downloads anything."""
    from ragcun_cache.collections import find_collection
    from ragcun_cache.errors import CollectionError
    from ragcun_cache.home import Home

    try:
        return find_collection(name, Home.default(), download=False)
    except CollectionError:
        return None


def _encoder(
    layout: CacheLayout, manifest: Manifest, collection: Collection | None, model: str | None, device: str
) -> tuple[Collection, FrozenModel]:
    """Return what encoding rows again needs."""
    from ragcun_cache.encoder.recheck import model_of
    from ragcun_cache.errors import CacheError
    from ragcun_cache.home import Home

    if collection is None:
        raise CacheError(
            f"encoding rows again needs the collection {manifest.collection!r}, which is not on this machine",
            where=layout.folder,
            fix="name its folder with --dataset",
        )
    return collection, model_of(manifest, collection, Home.default(), model, device)


def _verify(layout: CacheLayout, manifest: Manifest, collection: Collection | None) -> list[Damage]:
    from ragcun_cache.cache import verify as find_damage

    ids = None
    if collection is not None and collection.content_sha256(manifest.role) == manifest.content_sha256:
        ids = (identifier for batch in collection.texts(manifest.role) for identifier in batch.ids)
    return list(find_damage(layout.folder, expected_ids=ids))


@app.command()
def verify(
    names: Names = None,
    repair: Annotated[bool, typer.Option("--repair", help="Encode damaged shards again, and nothing else.")] = False,
    re_encode: Annotated[int, typer.Option(min=0, help="Also encode this many rows again and compare them.")] = 0,
    min_cosine: Annotated[float, typer.Option(min=-1, max=1, help="Least agreement of re-encoded rows.")] = 0.999,
    model: Annotated[
        str | None, typer.Option(help="The model that made the cache. Default: the one of that name.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    dataset: Annotated[str | None, typer.Option(help="Folder of the collection, where its name finds none.")] = None,
    as_json: Json = False,
) -> None:
    """Read every byte and compare it with its checksum. Exit status 0: all sound, or repaired; 1: damage found.

    Of several caches, one that cannot be read, repaired or encoded again is named, and the others are checked all the
    same.
    """
    from ragcun_cache.cache.verify import sound_manifest
    from ragcun_cache.errors import RagcunCacheError

    records: list[dict[str, Any]] = []
    layouts = _layouts(names)
    for layout in layouts:
        record: dict[str, Any] = {"folder": str(layout.folder), "rows": 0, "found": [], "left": []}
        try:
            manifest = sound_manifest(layout.folder)
            collection = _collection(dataset or manifest.collection)
            damages = _verify(layout, manifest, collection)
            record |= {"rows": manifest.rows, "found": list(map(str, damages)), "left": list(map(str, damages))}
            if repair and damages:
                needs_model = any(damage.shard is not None for damage in damages)
                _repair(record, layout, manifest, damages, collection, (model, device) if needs_model else None)
            if re_encode and not record["left"]:
                _encode_again(record, layout, manifest, collection, (model, device), re_encode, min_cosine)
        except RagcunCacheError as error:
            if len(layouts) == 1:
                raise
            record["left"].append(str(error))
        records.append(record)
        if not as_json:
            _render_verified(record)
    if as_json:
        typer.echo(json.dumps(records, indent=2))
    if any(record["left"] for record in records):
        raise typer.Exit(1)


def _repair(
    record: dict[str, Any],
    layout: CacheLayout,
    manifest: Manifest,
    damages: list[Damage],
    collection: Collection | None,
    model: tuple[str | None, str] | None,
) -> None:
    """Repair the cache by the ``model`` and its device, None where no row is damaged, and note what is left."""
    from ragcun_cache.encoder.recheck import repair_cache

    frozen = _encoder(layout, manifest, collection, *model)[1] if model else None
    record["repaired"] = repair_cache(layout.folder, manifest, damages, collection, frozen)
    record["left"] = list(map(str, _verify(layout, manifest, collection)))


def _encode_again(
    record: dict[str, Any],
    layout: CacheLayout,
    manifest: Manifest,
    collection: Collection | None,
    model: tuple[str | None, str],
    rows: int,
    min_cosine: float,
) -> None:
    from ragcun_cache.cache import EmbeddingCache
    from ragcun_cache.encoder.recheck import check_sample

    sample = check_sample(EmbeddingCache(layout.folder), *_encoder(layout, manifest, collection, *model), rows)
    record["re_encoded"] = asdict(sample)
    if sample.min_cosine < min_cosine:
        record["left"].append(f"{sample.worst_id!r}, encoded again, agrees only at cosine {sample.min_cosine:.6f}")


def _render_verified(record: dict[str, Any]) -> None:
    state = "sound" if not record["left"] else "damaged" if record["found"] else "not as it should be"
    typer.echo(f"{record['folder']}: {record['rows']:,} rows, {state}")
    for line in record["found"]:
        typer.echo(f"  found: {line}")
    for line in record.get("repaired", []):
        typer.echo(f"  done: {line}")
    if "re_encoded" in record:
        sample = record["re_encoded"]
        typer.echo(f"  {sample['rows']:,} rows encoded again: cosine at least {sample['min_cosine']:.6f}")
    if "repaired" in record or record["left"] != record["found"]:
        for line in record["left"]:
            typer.echo(f"  left: {line}")


@app.command()
def gc(
    names: Names = None,
    delete: Annotated[bool, typer.Option("--delete", help="Really remove; else only say what could go.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove also what trained heads refer to.")] = False,
    as_json: Json = False,
) -> None:
    """Remove caches that were never finished or that a newer one replaces; with names, these caches themselves.

    Replaced is what a collection on this machine, found by its name, had in an earlier version.
    """
    from ragcun_cache.cache.gc import find_garbage, remove
    from ragcun_cache.errors import CacheError
    from ragcun_cache.home import Home

    home = Home.default()
    named = [layout for layout, _ in find_caches(names)] if names else []
    records: list[dict[str, Any]] = []
    for one in find_garbage(home, named):
        kept_for = () if force else one.heads
        removed, refused = delete and not kept_for, None
        if removed:
            try:
                remove(one)
            except CacheError as error:  # Somebody is writing it, or has; the others can go all the same.
                removed, refused = False, error.problem
        records.append(
            {
                "folder": str(one.layout.folder),
                "reason": one.reason,
                "bytes": one.bytes,
                "heads": list(one.heads),
                "removed": removed,
                "refused": refused,
            }
        )
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    for record in records:
        heads = record["heads"]
        kept = f"; kept for {len(heads)} heads such as {heads[0]} (--force removes it)" if heads and not force else ""
        kept = f"; {record['refused']}" if record["refused"] else kept
        verb = "removed" if record["removed"] else "kept" if kept else "could go"
        typer.echo(f"{verb}: {record['folder']}, {_size(record['bytes'])}, {record['reason']}{kept}")
    if not records:
        typer.echo("nothing to remove")
    elif not delete:
        typer.echo("nothing was removed; --delete removes what could go")
