"""Finding caches: all that there are, and the query and passage cache that belong together."""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ragcun_cache.cache.command import encode_command
from ragcun_cache.cache.layout import MANIFEST_NAME, CacheLayout, collection_folder
from ragcun_cache.cache.manifest import Manifest
from ragcun_cache.cache.place import LocalPlace
from ragcun_cache.cache.reader import EmbeddingCache, read_manifest
from ragcun_cache.collections import Collection
from ragcun_cache.errors import CacheError, unknown_choice
from ragcun_cache.role import Role

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CachePair:
    """The queries and the passages of one collection, as one encoder sees them."""

    collection: str
    encoder: str
    query: EmbeddingCache
    passage: EmbeddingCache

    @property
    def vectors(self) -> str:
        """What ``open_pair`` takes for this encoder, with these prompts where it has vectors with several."""
        return f"{self.encoder}+{self.query.fingerprint}+{self.passage.fingerprint}"

    def provenance(self) -> dict[str, Any]:
        """Return what the record of a head says of the vectors that it was trained on."""
        caches = {"query": self.query, "passage": self.passage}
        return {"collection": self.collection} | {
            role: {"fingerprint": cache.fingerprint, "content_sha256": cache.content_sha256}
            for role, cache in caches.items()
        }


def folder_pattern(collection: str | None) -> str:
    """Return the glob pattern of the folder of a collection's caches; of every collection for None."""
    return "*" if collection is None else glob.escape(collection_folder(collection))


def list_caches(caches: Path, collection: str | None = None) -> list[tuple[CacheLayout, Manifest]]:
    """Return every cache below ``caches`` with its manifest, by path; those with a damaged manifest are logged."""
    found = []
    for path in sorted(caches.glob(f"{folder_pattern(collection)}/*/{MANIFEST_NAME}")):
        try:
            found.append((CacheLayout(path.parent), read_manifest(LocalPlace(path.parent))))
        except CacheError as error:
            _log.warning("a cache is left out: %s", error)
    return found


def describe_encoder(manifest: Manifest) -> str:
    """Return the encoder of a cache in words: fingerprint, model, backend and precision."""
    spec = manifest.spec
    return f"{manifest.encoder} ({spec.get('model_id')}, {spec.get('backend')}, {spec.get('precision')})"


def made_at(layout: CacheLayout, manifest: Manifest) -> str:
    """Return when the cache was begun, as text that sorts by time; of an old one, when its manifest was written.

    A manifest that was restored from its copy is as old as the copy.
    """
    if "created" in manifest.provenance:
        return str(manifest.provenance["created"])
    written = min(path.stat().st_mtime for path in (layout.manifest, layout.manifest_copy) if path.exists())
    return datetime.fromtimestamp(written, UTC).isoformat()


def dated(layout: CacheLayout, manifest: Manifest) -> Manifest:
    """Return the manifest with the time that the cache was begun: to be written anew, it must not look younger."""
    return manifest.model_copy(update={"provenance": {**manifest.provenance, "created": made_at(layout, manifest)}})


def last_used(layout: CacheLayout) -> float:
    """Return when the cache was last opened as one of a pair, or else written: seconds since the epoch."""
    stamps = (layout.used, layout.manifest, layout.manifest_copy)
    return next(path.stat().st_mtime for path in stamps if path.exists())


def _chosen(caches: list[tuple[CacheLayout, Manifest]], asked: tuple[str, ...]) -> list[tuple[CacheLayout, Manifest]]:
    """Return the caches that fingerprints, or starts of them, stand for.

    That of a cache stands for it alone in its role, and for its encoder in the other; that of an encoder for all of it.
    """
    named = [one for one in caches if one[1].fingerprint.startswith(asked)]
    encoders = {found.encoder for _, found in named}
    roles = {found.role for _, found in named}
    others = [one for one in caches if one[1].role not in roles]
    return named + [one for one in others if one[1].encoder in encoders or one[1].encoder.startswith(asked)]


def _no_pair(
    caches: Path,
    collection: Collection,
    fresh: Sequence[Manifest],
    everything: Sequence[tuple[CacheLayout, Manifest]],
) -> CacheError:
    """Return the error where no encoder has both roles, by the caches that are up to date and by all there are."""
    before = [found for _, found in sorted(everything, key=lambda one: made_at(*one))]
    unfinished = [found for found in fresh if not found.complete]
    absent = [role for role in Role if role not in {found.role for found in fresh}]
    state = "; ".join(sorted({f"{found.role} of {describe_encoder(found)}" for found in fresh or before})) or "none"
    roles = absent or list(Role)
    if unfinished:
        problem = "the cached vectors are not complete"
        state = "; ".join(f"{m.role}: {m.rows} of {m.total_rows} rows, {describe_encoder(m)}" for m in unfinished)
        roles = list(dict.fromkeys([*absent, *(found.role for found in unfinished)]))
    elif fresh and absent:
        problem = f"there are no {absent[0]} vectors of the collection as it is now"
    elif fresh:
        problem = "no encoder has both query and passage vectors of the collection as it is now"
    elif everything:
        problem = "the cached vectors are of another version of the collection, or of another encoder"
    else:
        problem = "the collection has no cached vectors"
    # What is unfinished goes on. The caches of before may know the prompt of a role that is absent.
    like = [*before, *sorted(fresh, key=lambda one: not one.complete)]
    fix = encode_command(collection.dataset, like, roles)
    return CacheError(f"{collection.name}: {problem}", where=caches, found=state, fix=fix)


def open_pair(caches: Path, collection: Collection, encoder: str | None = None) -> CachePair:
    """Open the query and passage caches of the collection as its files are now.

    Args:
        caches: the folder of all caches.
        collection: whose vectors to open.
        encoder: fingerprint of the encoder, or the start of one; None if there is only one. Where a role has vectors
            with several prompts, the fingerprint of the cache that is meant; those of both roles are joined by ``+``.

    Raises:
        CacheError: there is none, only an unfinished or outdated one, or several to choose from.
    """
    content = {role: collection.content_sha256(role) for role in Role}
    everything = list_caches(caches, collection.name)
    fresh = [(layout, found) for layout, found in everything if found.content_sha256 == content[found.role]]
    named = False
    if encoder is not None:
        # An empty start would be that of every fingerprint.
        asked = tuple(filter(None, encoder.split("+")))
        named = any(found.fingerprint.startswith(asked) for _, found in fresh)
        known = {found.encoder for _, found in fresh} | {found.fingerprint for _, found in fresh}
        fresh = _chosen(fresh, asked)
        if known and not fresh:
            raise unknown_choice("encoder", encoder, known, where=caches, error=CacheError)
    by_encoder: dict[str, dict[Role, tuple[CacheLayout, Manifest]]] = {}
    for layout, found in fresh:
        if not found.complete:
            continue
        roles = by_encoder.setdefault(found.encoder, {})
        if found.role in roles:
            before = f"{encoder}+" if named else ""
            both = [one for _, one in (roles[found.role], (layout, found))]
            raise CacheError(
                f"{collection.name}: encoder {found.encoder} has {found.role} vectors with several prompts",
                where=caches,
                found="; ".join(f"{one.spec.get('prompt')!r} has the fingerprint {one.fingerprint}" for one in both),
                fix=f"name the one that is meant, such as --encoder {before}{found.fingerprint}",
            )
        roles[found.role] = (layout, found)
    pairs = {name: roles for name, roles in by_encoder.items() if len(roles) == len(Role)}
    if not pairs:
        raise _no_pair(caches, collection, [found for _, found in fresh], everything)
    if len(pairs) > 1:
        choices = sorted(describe_encoder(roles[Role.PASSAGE][1]) for roles in pairs.values())
        raise CacheError(
            f"{collection.name} is cached by several encoders",
            where=caches,
            expected=f"one of {'; '.join(choices)}",
            fix="name one with --encoder FINGERPRINT",
        )
    name, roles = pairs.popitem()
    for layout, _ in roles.values():
        with suppress(OSError):  # A cache that cannot be written can still be read.
            layout.used.touch()
    return CachePair(
        collection=collection.name,
        encoder=name,
        query=EmbeddingCache(roles[Role.QUERY][0].folder),
        passage=EmbeddingCache(roles[Role.PASSAGE][0].folder),
    )
