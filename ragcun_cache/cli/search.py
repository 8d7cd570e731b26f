"""``ragcun-cache search``: top passages for words of one's own, the raw encoder's beside a head's."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from ragcun_cache.home import Home

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from ragcun_cache.cache import CachePair
    from ragcun_cache.lookup import Passage, Searcher

_SNIPPET = 240


def search(
    words: Annotated[str, typer.Argument(help="What to look for, as one would ask it.")],
    dataset: Annotated[str, typer.Option(help="Cached collection to search in: a name or folder.")],
    head: Annotated[
        list[str] | None, typer.Option(help="Run name, folder, or pattern, shown beside the raw encoder. Repeatable.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="Passages for each.")] = 5,
    encoder: Annotated[str | None, typer.Option(help="Fingerprint of the encoder, where there are several.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The model that made the cache. Default: the one of that name.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
) -> None:
    """Encode words with the encoder of a cache, and show the passages that it finds: raw first, then each head's."""
    from ragcun_cache.cache import open_pair
    from ragcun_cache.collections import find_collection
    from ragcun_cache.errors import ConfigError

    if not words.strip():
        raise ConfigError("there is nothing to look for", expected="words", found=repr(words))
    home = Home.default()
    collection = find_collection(dataset, home, download=False)
    pair = open_pair(home.caches, collection, encoder)
    searchers = _searchers(head or [], pair, home, device)

    from ragcun_cache.encoder.recheck import model_of
    from ragcun_cache.lookup import encode_query, look_up

    manifest = pair.query.manifest
    frozen = model_of(manifest, collection, home, model, device)
    found = look_up(*encode_query(words, frozen), pair, collection, searchers, k)
    if as_json:
        typer.echo(json.dumps(_content(words, pair, searchers, found), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    Console().print(_table(words, pair, searchers, found))


def _searchers(names: list[str], pair: CachePair, home: Home, device: str) -> list[Searcher]:
    """Return the raw encoder and the heads. Raises EvaluationError for a head that is unknown or does not fit."""
    from ragcun_cache.evaluation.candidates import head_encoder, misfit, named_heads
    from ragcun_cache.evaluation.subject import encode_raw
    from ragcun_cache.lookup import Searcher
    from ragcun_cache.similarity import Similarity

    searchers = [Searcher("raw encoder", encode_raw, Similarity.COSINE)]
    for record in named_heads(names, home.heads):
        if problem := misfit(record, pair):
            raise problem
        searchers.append(Searcher(record.name, head_encoder(record, device)(), record.config.similarity))
    return searchers


def _content(words: str, pair: CachePair, searchers: list[Searcher], found: list[list[Passage]]) -> dict[str, object]:
    return {
        "words": words,
        "collection": pair.collection,
        "encoder": pair.encoder,
        "systems": [
            {
                "name": one.name,
                "similarity": str(one.similarity),
                "passages": [
                    {"id": passage.id, "score": passage.score, "title": passage.title, "text": passage.text}
                    for passage in passages
                ],
            }
            for one, passages in zip(searchers, found, strict=True)
        ],
    }


def _table(words: str, pair: CachePair, searchers: list[Searcher], found: list[list[Passage]]) -> Table:
    """Return a row a rank and a column a searcher; a passage that raw has too says by how much it moved."""
    from rich.table import Table
    from rich.text import Text

    caption = f"{pair.passage.rows:,} passages of {pair.collection}, encoder {pair.encoder}"
    table = Table(title=Text(words), caption=Text(caption), show_lines=True, expand=True)
    table.add_column("", justify="right", style="bold")
    for one in searchers:
        table.add_column(Text(f"{one.name} ({one.similarity})"), ratio=1, overflow="fold")
    raw_ranks = {passage.id: rank for rank, passage in enumerate(found[0])}
    for rank in range(max(map(len, found))):
        cells = [
            _cell(words, passages[rank], None if number == 0 else _move(raw_ranks.get(passages[rank].id), rank))
            for number, passages in enumerate(found)
        ]
        table.add_row(str(rank + 1), *cells)
    return table


def _move(raw_rank: int | None, rank: int) -> str:
    if raw_rank is None:
        return "new"
    return "" if raw_rank == rank else f"↑{raw_rank - rank}" if raw_rank > rank else f"↓{rank - raw_rank}"


def _cell(words: str, passage: Passage, move: str | None) -> Text:
    from rich.text import Text

    pattern = word_pattern(words)
    cell = Text()
    if passage.title:
        cell.append(f"{passage.title}\n", style="bold")
    cell.append(snippet(passage.text, pattern))
    cell.highlight_regex(pattern, "bold yellow")
    cell.append(f"\n{passage.score:.4f}  {passage.id}{'  ' + move if move else ''}", style="dim")
    return cell


def word_pattern(words: str) -> re.Pattern[str]:
    """Return a pattern of the words of four letters and more, whole and in any case; of all if there are none."""
    every = re.findall(r"\w+", words)
    chosen = [word for word in every if len(word) > 3] or every
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, chosen))})\b" if chosen else r"(?!)", re.IGNORECASE)


def snippet(text: str, pattern: re.Pattern[str], limit: int = _SNIPPET) -> str:
    """Return at most about ``limit`` characters of ``text`` on one line: from its start, or where most words are."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    places = [match.start() for match in pattern.finditer(text)]
    starts = [0, *(max(0, place - limit // 4) for place in places)]
    best = max(starts, key=lambda start: sum(start <= place < start + limit for place in places))
    cut = text[best : best + limit]
    if best:
        cut = "… " + cut.split(" ", 1)[-1]
    return cut if best + limit >= len(text) else cut.rsplit(" ", 1)[0] + " …"
