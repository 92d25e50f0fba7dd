"""MLRModel: a sentence-transformers model whose documents are several layers and whose queries are the last."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import nn

from mlr_rag.encoders import Batch, prompt_of
from mlr_rag.errors import InvalidInputError, UnsafeModelError, UnsupportedModelError
from mlr_rag.model import encoding
from mlr_rag.model.capture import check_capture, find_layers
from mlr_rag.model.encoding import check_texts
from mlr_rag.model.identity import document_fingerprint, fingerprint, identity
from mlr_rag.model.loading import check_folder, is_mlr_folder, load_modules, read_json
from mlr_rag.model.names import resolve
from mlr_rag.model.pooling import MultiLayerPooling, PoolingMode, Start, resolve_layers
from mlr_rag.model.query_adapter import AdapterForm, QueryAdapter
from mlr_rag.model.sides import freeze_documents
from mlr_rag.model.twin import TwinTransformer

logger = logging.getLogger(__name__)


class MLRModel(SentenceTransformer):
    """A `SentenceTransformer` with multi-layer document representations (arXiv 2509.23861).

    Build one with `from_pretrained`, read a saved one with `load`. Trainers, evaluators and miners take it as any
    other SentenceTransformer. Vectors are unit float32.

    Attributes:
        name: The base's name, or the folder it was loaded from.
    """

    name: str = ""

    @classmethod
    def from_pretrained(
        cls,
        base: str | Path | SentenceTransformer,
        layers: int | Sequence[int] = (-2, -1),
        pooling: PoolingMode = "scalar_mix",
        token_pooling: str | None = None,
        start: Start = "identity",
        separate_query_encoder: bool = False,
    ) -> MLRModel:
        """Multi-layer representations over a base model; until trained, its vectors are the base's own.

        Args:
            base: A hub id, a local folder, or a SentenceTransformer (whose modules are then shared, not copied).
            layers: The layer set: 1 to L, or -1 (the last) to -L; the last layer is always in it.
            pooling: `last`, `mean`, `scalar_mix`, `self_contrastive` or `multi_vector` (see MultiLayerPooling).
            token_pooling: `cls`, `mean`, `lasttoken`, ...; the base's own by default.
            start: "identity", or "paper" for the paper's initial weights (not the base's vectors).
            separate_query_encoder: Queries go through a copy of the base's Transformer, to be trained apart from the
                documents', as in the paper; twice the memory (see TwinTransformer).

        Raises:
            ModelNotFoundError: no such model; lists what was tried.
            UnsafeModelError: loading the base would run code.
            UnsupportedModelError: the base's layers or modules cannot be used.
            InvalidInputError: no such layer or option.
        """
        if isinstance(base, MLRModel):
            raise InvalidInputError("the base is a multi-layer model already", found=base.name, expected="its base")
        if isinstance(base, SentenceTransformer):
            name, modules, settings = _name_of(base), list(base), _settings_of(base)
        else:
            folder = resolve(base)
            if is_mlr_folder(folder):
                raise InvalidInputError(
                    f"{base} is a multi-layer model already", remedy=f"Use MLRModel.load({str(base)!r})."
                )
            name = str(folder) if Path(base).is_dir() else str(base)
            modules, settings = load_modules(folder), _read_settings(folder)
        transformer, token_pool, tail = _split(modules, name)
        _, blocks = find_layers(transformer.model)
        chosen = resolve_layers(layers, len(blocks))
        if pooling == "multi_vector" and len(chosen) < 2:
            raise InvalidInputError(
                "one vector a layer needs layers", found=chosen, expected="two or more", remedy='Use pooling="last".'
            )
        layer_pool = MultiLayerPooling(
            dimension=transformer.get_embedding_dimension(),
            num_layers=len(blocks),
            layers=chosen,
            pooling=pooling,
            token_pooling=token_pooling or str(token_pool.pooling_mode),
            include_prompt=token_pool.include_prompt,
            start=start,
        )
        if separate_query_encoder:
            transformer = TwinTransformer(transformer)
        model = cls._build([transformer, layer_pool, *tail], name, settings).eval()
        check_capture(transformer, dict(transformer.preprocess(["a sentence"]).to(model.device)))
        return model

    @classmethod
    def load(cls, path: str | Path) -> MLRModel:
        """The model that `save` wrote; no code from the folder is run, and no pickle read.

        Raises:
            ModelNotFoundError, UnsafeModelError, UnsupportedModelError.
        """
        folder = resolve(path)
        if not is_mlr_folder(folder):
            raise UnsupportedModelError(
                f"{path} is not a multi-layer model",
                found="no MultiLayerPooling in modules.json",
                remedy=f"Make one of it with MLRModel.from_pretrained({str(path)!r}).",
            )
        return cls._build(load_modules(folder), str(folder), _read_settings(folder)).eval()

    @classmethod
    def open(cls, name: str | Path, **recipe: Any) -> MLRModel:
        """`load` for a saved multi-layer model, `from_pretrained` with the recipe for any other."""
        return cls.load(name) if is_mlr_folder(resolve(name)) else cls.from_pretrained(name, **recipe)

    @classmethod
    def _build(cls, modules: list[nn.Module], name: str, settings: dict[str, Any]) -> MLRModel:
        truncate_dim = settings.pop("truncate_dim", None)
        model = cls(modules=modules, truncate_dim=truncate_dim, **settings)
        model.name = name
        return model

    def save(
        self,
        path: str | Path,
        model_name: str | None = None,
        create_model_card: bool = False,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Write the model to a folder; no model card unless asked for, as it may quote training texts.

        Args:
            path: The folder, made where it is missing.
            model_name: Shown in the model card.
            create_model_card: Write a README.md as sentence-transformers does.
            train_datasets: Shown in the model card.
            safe_serialization: Must be True: weights are written as safetensors.

        Raises:
            UnsafeModelError: pickled weights were asked for.
            InvalidInputError: the model has LoRA that is not merged.
        """
        if not safe_serialization:
            raise UnsafeModelError("weights are never pickled", found="safe_serialization=False", expected="True")
        if getattr(self[0].model, "peft_config", None):  # the updates alone would be written, which load cannot read
            raise InvalidInputError(
                "the model has LoRA that is not merged",
                expected="a plain model",
                remedy="mlr_rag.training.merge_lora(model) first.",
            )
        check_folder(path)
        super().save(str(path), model_name, create_model_card, train_datasets)
        config = Path(path) / "config_sentence_transformers.json"
        content = json.loads(config.read_text("utf-8"))
        content["requirements"] = {
            "mlr-rag": {
                "specifier": ">=0.1",
                "reason": "It is a multi-layer model: open it with mlr_rag.MLRModel.load.",
            }
        }
        config.write_text(json.dumps(content, indent=2, sort_keys=True), "utf-8")

    def add_query_adapter(self, rank: int = 16, form: AdapterForm = "linear", seed: int = 0) -> MLRModel:
        """This model with an adapter for queries before its last module: a new model, which shares the other modules.

        Until trained it changes nothing. Documents never go through it, so a collection stays valid whatever it learns
        (see QueryAdapter).

        Args:
            rank: How many directions it can change, up to the dimension.
            form: "linear", or "keys" (see QueryAdapter).
            seed: Of its first weights; the same seed gives the same model in every process.

        Raises:
            InvalidInputError: no such rank or form, or the model has an adapter.
        """
        modules: list[Any] = list(self)
        if any(isinstance(module, QueryAdapter) for module in modules):
            raise InvalidInputError("the model has a query adapter already", found=self.name, expected="none")
        widths = [module.get_embedding_dimension() for module in modules if hasattr(module, "get_embedding_dimension")]
        adapter = QueryAdapter(widths[-1], rank, form, seed)
        adapter.train(self.training)
        return self._rebuilt([*modules[:-1], adapter, modules[-1]])

    def without_query_adapter(self) -> MLRModel:
        """This model less its adapter, if it has one: a new model, which shares the other modules."""
        rest: list[nn.Module] = [module for module in self if not isinstance(module, QueryAdapter)]
        return self._rebuilt(rest)

    def _rebuilt(self, modules: list[nn.Module]) -> MLRModel:
        """This model with other modules. Those that it shares stay in the mode that they are in, as the model is."""
        model = self._build(modules, self.name, _settings_of(self))
        model.training = self.training
        return model

    def freeze_documents(self) -> None:
        """Leave only the query side to be trained, so that documents' vectors stay as they are, bit for bit.

        The modules are frozen in every model that shares them; `requires_grad_(True)` undoes it.

        Raises:
            InvalidInputError: queries have no part of their own.
        """
        freeze_documents(self)

    def export_portable(self, path: str | Path) -> None:
        """Write stock modules that plain `SentenceTransformer` loads, without mlr_rag (see portable.py)."""
        from mlr_rag.model.portable import export_portable

        check_folder(path)
        export_portable(self, path)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layer set, 1-based and ascending."""
        return self._pooling.layers

    @property
    def pooling(self) -> PoolingMode:
        """How layers become a document's vector."""
        return self._pooling.pooling

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self.get_embedding_dimension() or self._pooling.dimension)

    @property
    def vectors_per_document(self) -> int:
        """1, or the number of layers for `multi_vector`."""
        return len(self.layers) if self.pooling == "multi_vector" else 1

    @property
    def recipe(self) -> dict[str, Any]:
        """What `from_pretrained` needs, with the base's name, to make this model before any training."""
        pooling = self._pooling
        names = ("pooling", "token_pooling", "start")
        separate = {"separate_query_encoder": True} if isinstance(self[0], TwinTransformer) else {}
        return {"layers": list(self.layers), **{name: getattr(pooling, name) for name in names}, **separate}

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that moves the vectors; made anew whenever a weight or a setting has changed."""
        return fingerprint(self)

    @property
    def document_fingerprint(self) -> str:
        """The same of what moves documents' vectors: a query adapter changes nothing in it."""
        return document_fingerprint(self)

    def identity(self) -> dict[str, Any]:
        """The parts that the fingerprint is made of, hashed afresh (see mlr_rag.model.identity)."""
        return identity(self)

    def forward(self, input: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """All modules in turn; layer vectors `(B, m, D)` pass through the modules after the pooling as well."""
        features: dict[str, Any] = super().forward(input, **kwargs)
        layers = features.get("layer_embeddings")
        if layers is not None:
            task, rows = kwargs.get("task") or features.get("task"), layers.flatten(0, 1)
            for module in list(self)[2:]:
                rows = module({"sentence_embedding": rows, "task": task})["sentence_embedding"]
            features["layer_embeddings"] = rows.unflatten(0, layers.shape[:2])
            if self.pooling == "multi_vector" and task != "query":
                features["sentence_embedding"] = features["layer_embeddings"]
        return features

    def encode(  # type: ignore[override]
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        *,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        return_cut: bool = False,
        task: str | None = None,
        return_layers: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Unit vectors of texts: `(n, D)` float32; prefer `encode_query` and `encode_document`.

        Works as `SentenceTransformer.encode`, but batches are cut by tokens and sorted by token length.

        Args:
            inputs: A text, or texts; one text gives one vector `(D,)`.
            prompt_name: Which of the model's prompts goes before each text.
            prompt: The prompt itself, in place of a name.
            batch_size: The largest number of texts in a batch; by default only the number of tokens counts.
            convert_to_numpy: Return an array (the default).
            convert_to_tensor: Return a tensor; with both off, a list of tensors.
            **kwargs: The other options of `SentenceTransformer.encode`, which then does the work.
            show_progress_bar: By default shown on a terminal, for more than one window of texts.
            return_cut: Return `(vectors, cut)`, with how many texts were longer than the model reads, instead of
                logging it.
            task: "query" or "document" (the default).
            return_layers: Unit vectors of every layer, `(n, m, D)`, in place of the pooled ones.

        Raises:
            InvalidInputError: something is not a text.
        """
        kwargs.pop("normalize_embeddings", None)  # they always are
        single, texts = isinstance(inputs, str), check_texts(inputs)
        stock = {
            key: value for key, value in kwargs.items() if value not in (None, False, "float32", "sentence_embedding")
        }
        if stock:
            if return_cut or return_layers:
                raise InvalidInputError("return_cut and return_layers go with no other options", found=sorted(stock))
            return super().encode(
                inputs if single else texts, prompt_name, prompt, batch_size or 32, show_progress_bar,
                convert_to_numpy=convert_to_numpy, convert_to_tensor=convert_to_tensor, task=task,
                normalize_embeddings=self.vectors_per_document == 1, **kwargs,
            )  # fmt: skip
        prompt = self._resolve_prompt(prompt, prompt_name)
        vectors, cut = encoding.encode(
            self, texts, task or "document", prompt, batch_size, show_progress_bar, return_layers
        )
        if cut and not return_cut:
            self.log_cut(cut, len(texts))
        result: Any = vectors[0] if single else vectors
        if convert_to_tensor or not convert_to_numpy:
            result = torch.from_numpy(result)
            result = result if convert_to_tensor or single else list(result)
        return (result, cut) if return_cut else result

    def encode_layers(self, texts: Sequence[str], **kwargs: Any) -> npt.NDArray[np.float32]:
        """Unit vectors of every layer in the layer set, ascending, the last layer last: `(n, m, D)` float32."""
        prompt = kwargs.pop("prompt", None) or prompt_of(self, "document") or None
        vectors: npt.NDArray[np.float32] = self.encode(
            texts, prompt=prompt, task="document", return_layers=True, **kwargs
        )
        return vectors

    def stream(
        self,
        texts: Sequence[str],
        task: str = "document",
        prompt: str | None = None,
        batch_size: int | None = None,
        return_layers: bool = False,
    ) -> Iterator[Batch]:
        """Encode one window of texts, yielding each batch as it is done, longest texts first.

        Holds the tokens of all the texts: pass `encoding.WINDOW` of them or fewer at a time. Without a prompt, the
        model's own for the task is used.
        """
        prompt = prompt_of(self, task) if prompt is None else prompt
        yield from encoding.stream(self, texts, task, prompt or None, batch_size, return_layers)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Scores `(q, n)` of queries `(q, D)` with documents `(n, D)`, or with the best layer of `(n, m, D)`."""
        documents = torch.as_tensor(embeddings2)
        if documents.ndim < 3:
            scores: torch.Tensor = super().similarity(embeddings1, embeddings2)
            return scores
        return torch.einsum("qd,nmd->qnm", torch.as_tensor(embeddings1), documents).amax(-1)

    @property
    def _pooling(self) -> MultiLayerPooling:
        return cast(MultiLayerPooling, self[1])

    def log_cut(self, cut: int, total: int) -> None:
        """Say that texts were cut: a warning the first time in a model's life, then only at level INFO."""
        level = logging.INFO if self.__dict__.get("_cut_logged") else logging.WARNING
        self.__dict__["_cut_logged"] = True
        logger.log(
            level, "%s of %s texts are longer than the %s tokens that the model reads; only their beginnings count.",
            f"{cut:,}", f"{total:,}", f"{self.max_seq_length:,}",
        )  # fmt: skip


def _split(modules: list[Any], name: str) -> tuple[Any, Pooling, list[nn.Module]]:
    """Transformer, token pooling, and what comes after it, with unit vectors at the end."""
    kinds = [type(module).__name__ for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise UnsupportedModelError(
            f"cannot put multi-layer pooling on {name}",
            found=" > ".join(kinds),
            expected="Transformer > Pooling > ...",
            remedy="Pass one encoder: of a Router, one of its routes.",
        )
    transformer, token_pool, *tail = modules
    mode = token_pool.pooling_mode
    if not isinstance(mode, str):
        raise UnsupportedModelError(f"{name} concatenates several token poolings", found=mode, expected="one")
    if not tail or not isinstance(tail[-1], Normalize):
        tail = [*tail, Normalize()]
    return transformer, token_pool, tail


def _name_of(base: Any) -> str:
    return str(base[0].config._name_or_path or type(base).__name__)


def _settings_of(base: SentenceTransformer) -> dict[str, Any]:
    return {
        "prompts": dict(base.prompts),
        "default_prompt_name": base.default_prompt_name,
        "truncate_dim": base.truncate_dim,
        "device": str(base.device),
    }


def _read_settings(folder: Path) -> dict[str, Any]:
    saved = read_json(folder / "config_sentence_transformers.json") or {}
    settings = {key: saved.get(key) for key in ("default_prompt_name", "truncate_dim")}
    return settings | {"prompts": saved.get("prompts") or {}}
