"""A real S3 server on this machine: publishing to it and reading from it over HTTP."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import EmbeddingCache
from ragcun_cache.cache.publish import publish
from ragcun_cache.errors import CacheError
from ragcun_cache.role import Role

pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

pytestmark = [
    # Of botocore and moto, about themselves.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(botocore|aiobotocore|moto|s3fs|werkzeug|aiohttp).*"),
    # aiobotocore leaves the closing of its connections to the end of the interpreter.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    # File systems are cached by their arguments, which do not hold the environment.
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    yield name
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def folder(cache_of, tmp_path: Path) -> Path:
    vectors_nd = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float16)
    return cache_of(tmp_path, "any", Role.PASSAGE, [f"id {row}" for row in range(10)], vectors_nd, shard_rows=4)


def test_a_cache_goes_to_s3_and_is_read_there(folder: Path, bucket: str) -> None:
    url = f"s3://{bucket}/caches/any"
    report = publish(folder, url)
    assert (report.sent, report.kept) == (6, 0)
    local, there = EmbeddingCache(folder), EmbeddingCache(url)
    assert there.ids == local.ids
    assert there.array().tobytes() == local.array().tobytes()
    np.testing.assert_array_equal(there.gather([9, 0, 5]), local.gather([9, 0, 5]))
    assert publish(folder, url).sent == 0


def test_a_lost_object_is_named_and_sent_again(folder: Path, bucket: str) -> None:
    import s3fs

    url = f"s3://{bucket}/any"
    publish(folder, url)
    s3fs.S3FileSystem().rm_file(f"{bucket}/any/rows-00001.parquet")
    with pytest.raises(CacheError, match=r"rows-00001\.parquet"):
        EmbeddingCache(url)
    assert publish(folder, url).sent == 1
    assert EmbeddingCache(url).rows == 10


def test_no_bucket_is_made_of_a_mistyped_name(folder: Path, bucket: str) -> None:
    with pytest.raises(CacheError, match="could not be published"):
        publish(folder, "s3://no-such-bucket/any")
    with pytest.raises(CacheError, match="there is no cache here"):
        EmbeddingCache("s3://no-such-bucket/any")


def test_a_server_that_is_down_is_an_error_of_ours(folder: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(CacheError, match="cannot be listed"):
        EmbeddingCache(f"s3://{bucket}/any")
