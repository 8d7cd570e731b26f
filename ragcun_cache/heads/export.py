"""A head on its encoder, as a model that sentence-transformers loads without any of this project's code."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ragcun_cache.encoder.quiet import quiet_transformers
from ragcun_cache.errors import HeadError
from ragcun_cache.files import sync_folder, sync_tree
from ragcun_cache.heads.config import Input, is_own
from ragcun_cache.heads.export_layout import write_classic_layout
from ragcun_cache.role import Role
from ragcun_cache.similarity import Similarity

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ragcun_cache.heads.head import Head
    from ragcun_cache.heads.projection import Projection
    from ragcun_cache.heads.store import SavedHead

_SIMILARITY: dict[Similarity, Literal["cosine", "dot", "euclidean"]] = {
    Similarity.COSINE: "cosine",
    Similarity.DOT: "dot",
    Similarity.L2: "euclidean",
}
_PROMPT = {Role.QUERY: "query", Role.PASSAGE: "document"}


@dataclass(frozen=True)
class BaseModel:
    """The encoder that a head was trained on: its folder, token limit, and the prompt of each role."""

    folder: Path
    max_seq_length: int
    prompts: Mapping[Role, str]


def export_sentence_transformers(saved: SavedHead, base: BaseModel, card: str, folder: Path) -> None:
    """Write a folder for ``SentenceTransformer(folder)``, whole or not at all.

    It holds the encoder's own modules, then the head as ``Dense`` modules (behind a ``Router`` where queries and
    passages are mapped differently), then ``Normalize`` for a head that is compared by cosine. All weights are float32
    in safetensors, and no code comes along. ``encode_query`` and ``encode_document`` give what the head makes of cached
    vectors. ``card`` becomes README.md. Older releases read these files too: see ``write_classic_layout``.

    Raises:
        HeadError: the folder is there already, or the head is not made of linear layers and GELU, or does more than
            they do.

    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    if folder.exists():
        raise HeadError("there is something here already", where=folder, fix="name another folder, or remove this one")
    head = saved.head
    by_role = {role: _dense_modules(head, role) for role in Role}
    with quiet_transformers():
        encoder = SentenceTransformer(str(base.folder), device="cpu", local_files_only=True)
    encoder.max_seq_length = base.max_seq_length
    modules: list[nn.Module] = list(encoder.float())
    # As the cache has it: what follows a Normalize in the encoder takes unit vectors, and only a last one is left out.
    if isinstance(modules[-1], Normalize):
        modules.pop()
    if head.config.input == Input.UNIT:
        modules.append(Normalize())
    last = [Normalize()] if head.similarity == Similarity.COSINE else []
    if _same(by_role):
        modules += [*by_role[Role.QUERY], *last]
    else:
        # A route must hold something; a second Normalize changes nothing.
        routes = {role: [*dense, *last] or [Normalize()] for role, dense in by_role.items()}
        modules.append(Router.for_query_document(routes[Role.QUERY], routes[Role.PASSAGE]))
    model = SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts={_PROMPT[role]: prompt for role, prompt in base.prompts.items()},
        similarity_fn_name=_SIMILARITY[head.similarity],
    )
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        with quiet_transformers():
            model.save_pretrained(str(partial), create_model_card=False)
        write_classic_layout(partial, base.folder, base.max_seq_length)
        (partial / "README.md").write_text(card, encoding="utf-8")
        sync_tree(partial)
        partial.rename(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def maps_roles_apart(head: Head) -> bool:
    """Return whether queries and passages go through different layers of the exported model. Raises HeadError."""
    return not _same({role: _dense_modules(head, role) for role in Role})


def _same(by_role: Mapping[Role, list[Any]]) -> bool:
    one, other = by_role[Role.QUERY], by_role[Role.PASSAGE]
    return len(one) == len(other) and all(
        (a.linear.weight == b.linear.weight).all() and (a.linear.bias == b.linear.bias).all()
        for a, b in zip(one, other, strict=True)
    )


def _dense_modules(head: Head, role: Role) -> list[Any]:
    """Return the ``Dense`` modules that do to a vector what ``head`` does in ``role``. Raises HeadError."""
    modules = _stock_modules(head, role)
    if is_own(head.config.arch) and not _does_no_more(head, role, modules):
        raise HeadError(
            f"a head of arch {head.config.arch} does more than the built-in head that it is a subclass of",
            expected="the layers of a built-in head alone",
            found=f"other vectors of a {role} from them than from the head",
            fix="apply it to vectors, as docs/export.md says",
        )
    return modules


def _does_no_more(head: Head, role: Role, modules: list[Any]) -> bool:
    """Return whether ``modules`` give what ``head`` gives, for unit vectors that are drawn with a fixed seed."""
    import torch
    from torch import nn

    with torch.no_grad():
        x_bd = torch.randn(64, head.config.in_dim, generator=torch.Generator().manual_seed(0))
        x_bd = nn.functional.normalize(x_bd)
        head_be = head.encode_query(x_bd) if role == Role.QUERY else head.encode_passage(x_bd)
        found_be: Tensor = nn.Sequential(*modules)({"sentence_embedding": x_bd})["sentence_embedding"]
    same = found_be.shape == head_be.shape
    return same and torch.allclose(found_be, head_be, rtol=1e-4, atol=1e-5 * float(head_be.abs().max()))


def _stock_modules(head: Head, role: Role) -> list[Any]:
    import torch
    from torch import nn

    from ragcun_cache.heads.adapter import AdapterHead, LinearMap, LowRankMap
    from ragcun_cache.heads.config import Side
    from ragcun_cache.heads.identity import IdentityHead
    from ragcun_cache.heads.output import Standardize
    from ragcun_cache.heads.projected import ProjectionHead

    if isinstance(head, IdentityHead):
        return []
    if isinstance(head, ProjectionHead):
        modules = _mlp_modules(head.projection_of(role))
        if isinstance(head.output, Standardize):
            inverse_e = 1 / head.output.std_e
            modules.append(_dense(inverse_e.diag(), -head.output.mean_e * inverse_e, nn.Identity()))
        return modules
    if not isinstance(head, AdapterHead):
        raise HeadError(
            f"a head of arch {head.config.arch} cannot be written as modules of sentence-transformers",
            expected="a built-in architecture, a subclass of one, or an adapter",
        )
    if role == Role.PASSAGE and head.side == Side.QUERY:
        return []
    if isinstance(head.map, LinearMap):
        return [_dense(head.map.weight, head.map.bias, nn.Identity())]
    if isinstance(head.map, LowRankMap):
        weight = torch.eye(head.config.in_dim) + head.map.up @ head.map.down
        return [_dense(weight, torch.zeros(len(weight)), nn.Identity())]
    return _mlp_modules(head.map)


def _mlp_modules(projection: Projection) -> list[Any]:
    """Return two layers that compute ``MLP(s x) / s``, or ``x + MLP(s x) / s`` for a residual projection.

    A stock layer has no bypass for x. But ``GELU(z) - GELU(-z) = z``, so x goes through the hidden layer as ``s x`` and
    ``-s x`` beside its own units, and the last layer takes their difference: exact but for rounding.
    """
    import torch
    from torch import nn

    first, last = projection.mlp[0], projection.mlp[-1]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    scale = projection.scale
    weight: Tensor = first.weight * scale
    bias: Tensor = first.bias
    back = last.weight / scale
    if projection.residual:
        dim = weight.shape[1]
        bypass = scale * torch.eye(dim)
        weight, bias = torch.cat([weight, bypass, -bypass]), torch.cat([bias, torch.zeros(2 * dim)])
        back = torch.cat([back, torch.eye(dim) / scale, -torch.eye(dim) / scale], dim=1)
    return [_dense(weight, bias, nn.GELU()), _dense(back, last.bias / scale, nn.Identity())]


def _dense(weight: Tensor, bias: Tensor, activation: nn.Module) -> Any:
    from sentence_transformers.sentence_transformer.modules import Dense

    return Dense(
        in_features=weight.shape[1],
        out_features=weight.shape[0],
        activation_function=activation,
        init_weight=weight.detach().clone(),
        init_bias=bias.detach().clone(),
    )
