from __future__ import annotations

import logging
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from ragcun_cache.cache import CacheLayout, EmbeddingCache, list_caches, open_pair
from ragcun_cache.errors import CacheError
from ragcun_cache.home import Home
from ragcun_cache.role import Role


class Tiny:
    name = dataset = "tiny"

    def content_sha256(self, role: Role) -> str:
        return sha256(f"tiny/{role}".encode()).hexdigest()


def test_no_cache_names_the_command_that_makes_one(home: Home) -> None:
    with pytest.raises(CacheError, match="ragcun-cache encode --dataset tiny"):
        open_pair(home.caches, Tiny())


def test_a_cache_of_an_older_collection_is_not_used(home: Home, tiny_pair) -> None:
    tiny_pair()

    class Changed(Tiny):
        def content_sha256(self, role: Role) -> str:
            return sha256(f"changed/{role}".encode()).hexdigest()

    with pytest.raises(CacheError, match="another version of the collection"):
        open_pair(home.caches, Changed())


@pytest.mark.parametrize(("backend", "command"), [("torch", "encode"), ("imported", "caches import")])
def test_of_what_is_complete_only_what_is_absent_is_named_and_how_to_make_it_alike(
    home: Home, cache_of, backend: str, command: str
) -> None:
    content = Tiny().content_sha256(Role.QUERY)
    spec = {"model_id": "e5", "backend": backend, "storage_dtype": "float32", "prompt": "ask: "}
    cache_of(home.caches, "tiny", Role.QUERY, ["a"], np.ones((1, 4), np.float16), content_sha256=content, spec=spec)

    class InAFolder(Tiny):
        dataset = "my sets/tiny"

    with pytest.raises(CacheError, match="there are no passage vectors of the collection as it is now") as error:
        open_pair(home.caches, InAFolder())
    fix = str(error.value.fix)
    assert fix.startswith(f"ragcun-cache {command} --dataset 'my sets/tiny' ")
    options = "--model e5 --model-id e5 --backend torch --precision fp32 --storage-dtype float32 --query-prompt 'ask: '"
    assert (options if command == "encode" else "--role passage --model-id e5 --storage-dtype float32 --vectors") in fix
    assert "--role query" not in fix


def test_only_what_is_not_complete_is_called_so(home: Home, tiny_pair) -> None:
    pair = tiny_pair(content={role: Tiny().content_sha256(role) for role in Role})
    layout = CacheLayout(pair.passage.folder)
    pair.passage.manifest.model_copy(update={"complete": False}).write(layout)
    with pytest.raises(CacheError, match=r"not complete[\s\S]*found: +passage: 120 of 120 rows") as error:
        open_pair(home.caches, Tiny())
    assert "query" not in str(error.value.found)
    assert str(error.value.fix).startswith(
        "ragcun-cache encode --dataset tiny --model fake --model-id fake --backend fake --precision fp32 ("
    )


def test_the_command_for_a_model_of_the_hub_can_be_copied_whole(home: Home, cache_of) -> None:
    content = Tiny().content_sha256(Role.QUERY)
    spec = {"model_id": "intfloat/e5-base-v2", "backend": "torch"}
    cache_of(home.caches, "tiny", Role.QUERY, ["a"], np.ones((1, 4), np.float16), content_sha256=content, spec=spec)
    with pytest.raises(CacheError, match="no passage vectors") as error:
        open_pair(home.caches, Tiny())
    fix = "ragcun-cache encode --dataset tiny --model intfloat/e5-base-v2 --backend torch --precision fp32"
    assert error.value.fix == fix


def test_an_encode_that_stopped_goes_on_with_the_prompts_that_it_had(home: Home, cache_of) -> None:
    """That of the queries, which have changed since, is known from their old cache alone."""
    for role in Role:
        spec = {"model_id": "all-mpnet-base-v2", "max_seq_length": 384, "prompt": f"{role}: "}
        content = sha256(f"old/{role}".encode()).hexdigest() if role is Role.QUERY else Tiny().content_sha256(role)
        folder = cache_of(
            home.caches, "tiny", role, ["a"], np.ones((1, 4), np.float16), content_sha256=content, spec=spec
        )
    EmbeddingCache(folder).manifest.model_copy(update={"complete": False}).write(CacheLayout(folder))
    with pytest.raises(CacheError, match="not complete") as error:
        open_pair(home.caches, Tiny())
    assert error.value.fix == (
        "ragcun-cache encode --dataset tiny --backend fake --precision fp32 "
        "--passage-prompt 'passage: ' --query-prompt 'query: '"
    )


def test_a_role_by_one_encoder_each_is_no_pair(home: Home, cache_of) -> None:
    for role in Role:
        content, spec = Tiny().content_sha256(role), {"model_id": f"of the {role}"}
        cache_of(home.caches, "tiny", role, ["a"], np.ones((1, 4), np.float16), content_sha256=content, spec=spec)
    with pytest.raises(CacheError, match="no encoder has both query and passage vectors"):
        open_pair(home.caches, Tiny())


def test_of_several_encoders_one_must_be_named(home: Home, tiny_pair, cache_of) -> None:
    first = tiny_pair()
    for role in Role:
        content = Tiny().content_sha256(role)
        spec = {"model_id": "other"}
        cache_of(home.caches, "tiny", role, ["a"], np.ones((1, 4), np.float16), content_sha256=content, spec=spec)
    with pytest.raises(CacheError, match="several encoders") as error:
        open_pair(home.caches, Tiny())
    assert first.encoder in str(error.value)
    assert open_pair(home.caches, Tiny(), first.encoder[:6]).encoder == first.encoder


def test_the_content_is_part_of_the_path() -> None:
    one, other = (CacheLayout.of(Path("c"), "n", Role.QUERY, "f" * 16, digit * 64).folder for digit in "ab")
    assert one != other


def test_one_damaged_manifest_does_not_hide_the_other_caches(home: Home, tiny_pair, caplog) -> None:
    good, bad = tiny_pair("good"), tiny_pair("bad")
    (bad.query.folder / "manifest.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        found = {layout.folder for layout, _ in list_caches(home.caches)}
    assert found == {good.query.folder, good.passage.folder, bad.passage.folder}
    assert "the manifest is damaged" in caplog.text
    assert "caches verify --repair" in caplog.text


def test_two_prompts_of_one_role_are_not_guessed_between(home: Home, tiny_pair, cache_of) -> None:
    plain = tiny_pair()
    made = {}
    for role in Role:
        content = Tiny().content_sha256(role)
        vectors = np.ones((1, 32), np.float16)
        folder = cache_of(
            home.caches, "tiny", role, ["q0"], vectors, content_sha256=content, spec={"prompt": f"{role}: "}
        )
        made[role] = EmbeddingCache(folder)
    with pytest.raises(CacheError, match=r"passage vectors with several prompts[\s\S]*'passage: ' has the fingerprint"):
        open_pair(home.caches, Tiny())
    asked = made[Role.QUERY].fingerprint
    with pytest.raises(CacheError, match=rf"passage vectors with several prompts[\s\S]*--encoder {asked}\+"):
        open_pair(home.caches, Tiny(), asked)
    both = open_pair(home.caches, Tiny(), f"{asked[:8]}+{plain.passage.fingerprint[:8]}")
    assert (both.query.fingerprint, both.passage.fingerprint) == (asked, plain.passage.fingerprint)
    with pytest.raises(CacheError, match="several prompts"):
        open_pair(home.caches, Tiny(), plain.encoder)
    with pytest.raises(CacheError, match="encoder"):
        open_pair(home.caches, Tiny(), "nothing")
    with pytest.raises(CacheError, match="passage vectors with several prompts"):
        open_pair(home.caches, Tiny(), f"{asked}+")
    with pytest.raises(CacheError, match="encoder"):
        open_pair(home.caches, Tiny(), "+")


def test_one_prompt_too_many_needs_one_fingerprint(home: Home, tiny_pair, cache_of) -> None:
    plain = tiny_pair()
    content = Tiny().content_sha256(Role.QUERY)
    spec = {"prompt": "search: "}
    cache_of(home.caches, "tiny", Role.QUERY, ["q0"], np.ones((1, 32), np.float16), content_sha256=content, spec=spec)
    found = open_pair(home.caches, Tiny(), plain.query.fingerprint)
    assert (found.query.folder, found.passage.folder) == (plain.query.folder, plain.passage.folder)


def test_a_pair_names_its_own_prompts_and_elsewhere_its_encoder(home: Home, tiny_pair, cache_of) -> None:
    plain = tiny_pair()
    content = Tiny().content_sha256(Role.QUERY)
    other = ["q0"], np.ones((1, 32), np.float16)
    first = open_pair(home.caches, Tiny())
    cache_of(home.caches, "tiny", Role.QUERY, *other, content_sha256=content, spec={"prompt": "search: "})
    assert open_pair(home.caches, Tiny(), first.vectors).query.folder == plain.query.folder
    shutil.rmtree(plain.query.folder)
    assert open_pair(home.caches, Tiny(), first.vectors).query.manifest.spec["prompt"] == "search: "
