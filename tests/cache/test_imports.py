from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from ragcun_cache.cache import CacheWriter, EmbeddingCache, open_pair
from ragcun_cache.cache.export import export
from ragcun_cache.cache.imports import ImportConfig, import_vectors
from ragcun_cache.cache.verify import verify
from ragcun_cache.cli import caches_transfer
from ragcun_cache.collections import Collection
from ragcun_cache.errors import CacheError, ConfigError
from ragcun_cache.home import Home
from ragcun_cache.role import Role

ROWS, DIM = 12, 5
CONFIG = ImportConfig(model_id="openai/text-embedding-3-small", shard_rows=5)


@pytest.fixture
def collection(tiny_collection) -> Collection:
    return Collection("tiny", tiny_collection(n_passages=ROWS, splits={"train": 4, "dev": 3, "test": 3}))


@pytest.fixture
def given() -> tuple[list[str], np.ndarray]:
    """Ids in another order than the collection's, and vectors that are not of unit norm."""
    rng = np.random.default_rng(0)
    order = rng.permutation(ROWS)
    vectors_nd = rng.normal(size=(ROWS, DIM)).astype(np.float32) * 3
    vectors_nd[2] = 0
    return [f"p{row}" for row in order], vectors_nd


def write_npy(folder: Path, ids: list[str], vectors_nd: np.ndarray) -> tuple[Path, Path]:
    np.save(folder / "v.npy", vectors_nd)
    (folder / "ids.txt").write_text("\n".join(ids) + "\n")
    return folder / "v.npy", folder / "ids.txt"


def write_json_ids(folder: Path, ids: list[str], vectors_nd: np.ndarray) -> tuple[Path, Path]:
    np.save(folder / "v.npy", vectors_nd.astype(np.float64))
    (folder / "ids.json").write_text(json.dumps(ids))
    return folder / "v.npy", folder / "ids.json"


def write_parquet(column) -> object:
    def write(folder: Path, ids: list[str], vectors_nd: np.ndarray) -> tuple[Path, None]:
        table = pa.table({"id": ids, "vector": column(vectors_nd)}, metadata={"dtype": "float32"})
        pq.write_table(table, folder / "v.parquet", row_group_size=5)
        return folder / "v.parquet", None

    return write


def fixed_list(vectors_nd: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors_nd.reshape(-1)), DIM)


def fixed_bytes(vectors_nd: np.ndarray) -> pa.Array:
    return pa.array([row.tobytes() for row in vectors_nd], pa.binary(DIM * 4))


def write_parquet_folder(folder: Path, ids: list[str], vectors_nd: np.ndarray) -> tuple[Path, None]:
    (folder / "many").mkdir()
    for part, rows in enumerate((slice(0, 7), slice(7, None))):
        table = pa.table({"id": ids[rows], "vector": fixed_list(vectors_nd[rows])})
        pq.write_table(table, folder / "many" / f"train-{part}.parquet")
    return folder / "many", None


def write_dataset(folder: Path, ids: list[str], vectors_nd: np.ndarray) -> tuple[Path, None]:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"id": ids, "vector": vectors_nd.tolist()}).save_to_disk(str(folder / "hf"))
    return folder / "hf", None


WRITERS = {
    "npy and text": write_npy,
    "npy of float64 and JSON": write_json_ids,
    "Parquet lists": write_parquet(lambda vectors_nd: pa.array(vectors_nd.tolist(), pa.list_(pa.float32()))),
    "Parquet large lists": write_parquet(lambda vectors_nd: pa.array(vectors_nd.tolist(), pa.large_list(pa.float32()))),
    "Parquet fixed lists": write_parquet(fixed_list),
    "Parquet bytes": write_parquet(fixed_bytes),
    "Parquet folder": write_parquet_folder,
    "dataset": write_dataset,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_comes_in_collection_order(
    kind: str, collection: Collection, home: Home, given, tmp_path: Path
) -> None:
    ids, vectors_nd = given
    source, id_file = WRITERS[kind](tmp_path, ids, vectors_nd)
    layout = import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches)
    assert verify(layout.folder, expected_ids=[f"p{row}" for row in range(ROWS)]) == []
    cache = EmbeddingCache(layout.folder)
    in_order_nd = vectors_nd[[ids.index(f"p{row}") for row in range(ROWS)]].astype(np.float64)
    norms = np.linalg.norm(in_order_nd, axis=1)
    np.testing.assert_allclose(cache.norms, norms, rtol=1e-6)
    np.testing.assert_allclose(cache.array(np.float64), in_order_nd / np.maximum(norms, 1)[:, None], atol=5e-4)
    assert cache.manifest.spec["backend"] == "imported"
    assert cache.manifest.provenance["source"]["name"] == source.name
    assert datetime.fromisoformat(cache.manifest.provenance["created"]).tzinfo == UTC
    first = next(collection.texts(Role.PASSAGE))
    text = f"{first.titles[0]} {first.texts[0]}".strip()
    assert cache.metadata()["text_sha256"][0] == sha256(text.encode()).digest()
    assert not [path for path in home.caches.iterdir() if path.name != "tiny"]


def test_both_roles_make_a_pair(collection: Collection, home: Home, given, tmp_path: Path) -> None:
    source, id_file = write_npy(tmp_path, *given)
    import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches)
    queries, query_ids = write_npy(tmp_path, [f"q{row}" for row in range(10)], np.ones((10, DIM), np.float32))
    prompted = CONFIG.model_copy(update={"prompt": "query: "})
    import_vectors(collection, Role.QUERY, queries, query_ids, prompted, home.caches)
    pair = open_pair(home.caches, collection)
    assert (pair.query.rows, pair.passage.rows, pair.query.dim) == (10, ROWS, DIM)


@pytest.mark.parametrize("to", ["npy", "parquet", "hf-dataset"])
def test_what_was_exported_comes_back(to: str, collection: Collection, home: Home, given, tmp_path: Path) -> None:
    if to == "hf-dataset":
        pytest.importorskip("datasets")
    source, id_file = write_npy(tmp_path, *given)
    config = CONFIG.model_copy(update={"storage_dtype": "float32"})
    cache = EmbeddingCache(import_vectors(collection, Role.PASSAGE, source, id_file, config, home.caches).folder)
    written = export(cache, to, tmp_path / "out")
    ids = written[1] if to == "npy" else None
    back = import_vectors(collection, Role.PASSAGE, written[0], ids, config, tmp_path / "other")
    np.testing.assert_allclose(EmbeddingCache(back.folder).array(), cache.array(), rtol=1e-6)
    if to != "npy":
        np.testing.assert_array_equal(EmbeddingCache(back.folder).norms, cache.norms)
    assert verify(back.folder) == []


@pytest.mark.parametrize("norm", [0.0, -1.0, float("nan"), float("inf"), 1e300, None])
def test_a_norm_that_is_none_is_named(
    norm: float | None, collection: Collection, home: Home, given, tmp_path: Path
) -> None:
    ids, vectors_nd = given
    norms = [1.0] * ROWS
    norms[2] = 0.0  # That of the vector of zeros.
    norms[4] = norm
    pq.write_table(pa.table({"id": ids, "vector": fixed_list(vectors_nd), "norm": norms}), tmp_path / "v.parquet")
    with pytest.raises(CacheError, match=rf"a norm is not that of a vector[\s\S]*row 4[\s\S]*for '{ids[4]}'"):
        import_vectors(collection, Role.PASSAGE, tmp_path / "v.parquet", None, CONFIG, home.caches)


def test_a_column_of_norms_that_only_some_files_have_is_refused(
    collection: Collection, home: Home, given, tmp_path: Path
) -> None:
    folder, _ = write_parquet_folder(tmp_path, *given)
    table = pq.read_table(folder / "train-1.parquet")
    pq.write_table(table.append_column("norm", pa.array([1.0] * len(table))), folder / "train-1.parquet")
    with pytest.raises(CacheError, match="some of the files have a column 'norm'"):
        import_vectors(collection, Role.PASSAGE, folder, None, CONFIG, home.caches)


def test_again_does_nothing_and_other_vectors_are_refused(
    collection: Collection, home: Home, given, tmp_path: Path
) -> None:
    ids, vectors_nd = given
    source, id_file = write_npy(tmp_path, ids, vectors_nd)
    folder = import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches).folder
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches)
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    write_npy(tmp_path, ids, vectors_nd + 1)
    with pytest.raises(CacheError, match="imported before"):
        import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches)
    apart = CONFIG.model_copy(update={"settings": {"version": "2"}})
    assert import_vectors(collection, Role.PASSAGE, source, id_file, apart, home.caches).folder != folder


def test_an_interrupted_import_goes_on(
    collection: Collection, home: Home, given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, id_file = write_npy(tmp_path, *given)
    real, appended = CacheWriter.append, 0

    def cut(self, shard) -> None:
        nonlocal appended
        appended += 1
        if appended == 2:
            raise KeyboardInterrupt
        real(self, shard)

    with monkeypatch.context() as patch:
        patch.setattr(CacheWriter, "append", cut)
        with pytest.raises(KeyboardInterrupt):
            import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches)
    layout = import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches)
    whole = import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, tmp_path / "other")
    for name in ("vectors-00000.npy", "vectors-00001.npy", "vectors-00002.npy", "rows-00002.parquet"):
        assert (layout.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_an_edit_that_was_taken_back_after_all_shards_were_written_is_seen(
    collection: Collection, home: Home, given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, id_file = write_npy(tmp_path, *given)
    corpus, content_sha256 = collection.path(Role.PASSAGE), Collection.content_sha256
    text = corpus.read_text()

    def edited_after(self: Collection, role: Role) -> str:
        digest = content_sha256(self, role)
        corpus.write_text(text.replace("title 7", "other"))
        return digest

    with monkeypatch.context() as patch, pytest.raises(CacheError, match="the collection changed"):
        patch.setattr(Collection, "content_sha256", edited_after)
        import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches)
    corpus.write_text(text)
    with pytest.raises(CacheError, match="shard 1 is of other texts than the collection has now"):
        import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches)


def test_ids_must_be_exactly_those_of_the_collection(collection: Collection, home: Home, given, tmp_path: Path) -> None:
    ids, vectors_nd = given
    ids = ["x1", "x2", *ids[2:-1], ids[2]]
    source, id_file = write_npy(tmp_path, ids, vectors_nd)
    with pytest.raises(CacheError, match=r"3 missing .*2 not in the collection \('x1', 'x2'\); 1 more than once"):
        import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches)
    assert not list(home.caches.glob("*/*"))


def test_a_vector_that_is_not_finite_is_named(collection: Collection, home: Home, given, tmp_path: Path) -> None:
    ids, vectors_nd = given
    vectors_nd[7, 1] = np.nan
    source, id_file = write_npy(tmp_path, ids, vectors_nd)
    with pytest.raises(CacheError, match=f"row 7\n.*{ids[7]!r}"):
        import_vectors(collection, Role.PASSAGE, source, id_file, CONFIG, home.caches)


def test_what_cannot_be_read_is_said(collection: Collection, home: Home, given, tmp_path: Path) -> None:
    ids, vectors_nd = given
    source, id_file = write_npy(tmp_path, ids[:-1], vectors_nd)

    def refused(message: str, path: Path, id_path: Path | None = None, **config: object) -> None:
        settings = CONFIG.model_copy(update=config)
        with pytest.raises(CacheError, match=message):
            import_vectors(collection, Role.PASSAGE, path, id_path, settings, home.caches)

    refused("differ in number", source, id_file)
    refused("has no ids", source)
    refused("no vectors here", tmp_path / "nothing.npy", id_file)
    np.save(tmp_path / "flat.npy", np.ones(3))
    refused("does not hold vectors", tmp_path / "flat.npy", id_file)
    with (tmp_path / "objects.npy").open("wb") as file:  # Of pickled objects, by its header; none is ever written.
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (1, 1)})
    refused("cannot be read", tmp_path / "objects.npy", id_file)
    (tmp_path / "ids.json").write_text('{"a": 1}')
    refused("a JSON list", source, tmp_path / "ids.json")
    refused("cannot be imported", id_file)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 it is not")
    refused("cannot be read", tmp_path / "bad.parquet")
    parquet = tmp_path / "v.parquet"
    refused("a table has ids of its own", source.rename(parquet), id_file)
    pq.write_table(pa.table({"id": ids, "emb": vectors_nd.tolist()}), parquet)
    refused("--vector-column", parquet)
    refused("--id-column", parquet, id_column="_id", vector_column="emb")
    pq.write_table(pa.table({"id": ids, "vector": [[1.0]] * 5 + [[1.0, 2.0]] * 7}), parquet)
    refused("row 5", parquet)
    pq.write_table(pa.table({"id": ids, "vector": [[1.0]] * 5 + [None] * 7}), parquet)
    refused("row 5", parquet)
    pq.write_table(pa.table({"id": ids, "vector": [[1]] * 12}), parquet)
    refused("floating-point", parquet)
    pq.write_table(pa.table({"id": ids, "vector": fixed_bytes(vectors_nd)}), parquet)
    refused("--vector-dtype", parquet)
    pq.write_table(pa.table({"id": ids, "vector": fixed_bytes(vectors_nd)}), parquet)
    refused("another dtype", parquet, vector_dtype="float64")


def run(*arguments: str) -> str:
    app = typer.Typer()
    for name in ("convert", "export", "import", "publish"):
        app.command(name)(getattr(caches_transfer, f"{name}_cache"))
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    return result.stdout


def test_the_commands(
    collection: Collection, home: Home, given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGCUN_HOME", str(home.root))
    source, id_file = write_npy(tmp_path, *given)
    base = ["import", "--dataset", "tiny", "--role", "passage", "--vectors", str(source), "--model-id", "m"]
    record = json.loads(run(*base, "--ids", str(id_file), "--provenance", "dimensions=5", "--json"))
    cache = EmbeddingCache(Path(record["folder"]))
    assert cache.manifest.spec["settings"] == {"dimensions": "5"}
    assert "1 shards converted" in run("convert", record["folder"], "--to", "parquet")
    assert json.loads(run("convert", record["folder"], "--to", "parquet", "--json"))["converted"] == 0
    url = f"file://{tmp_path}/share"
    assert json.loads(run("publish", record["folder"], url, "--json"))["sent"] == 2
    assert "out.npy" in run("export", url, "--to", "npy", "--out", str(tmp_path / "out.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), EmbeddingCache(cache.folder).array(np.float16))
    with pytest.raises(ConfigError, match="one of memmap, parquet"):
        run("convert", record["folder"], "--to", "zarr")
    with pytest.raises(ConfigError, match="one of hf-dataset, npy, parquet, safetensors"):
        run("export", record["folder"], "--to", "csv", "--out", str(tmp_path / "x"))
    with pytest.raises(ConfigError, match="key=value"):
        run(*base, "--provenance", "dimensions")
