"""A language model, whoever runs it: from a prompt to a reply."""

from __future__ import annotations

import importlib
import json
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from mlr_rag.errors import InvalidInputError, MissingExtraError, ModelError

_RETRIES = 2  # each after a longer wait; the openai package does it
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)  # reasoning models show theirs first

Item = TypeVar("Item")
Reply = TypeVar("Reply")


class LanguageModel:
    """What replies to a prompt.

    Args:
        complete: From a prompt to the reply. It is called from several threads.
        name: Names the model and every setting that its replies depend on, such as the temperature; replies are kept
            under it.
        threads: How many replies are waited for at once.
    """

    def __init__(self, complete: Callable[[str], str], name: str, threads: int = 8) -> None:
        if not name:
            raise InvalidInputError(
                "the language model has no name",
                expected="one that changes whenever its replies do",
                remedy="Name it: LanguageModel.langchain(model, name=...), LanguageModel.llama_index(model, name=...) "
                "or LanguageModel(function, name), of mlr_rag.training.",
            )
        if threads < 1:
            raise InvalidInputError("threads is too low", found=threads, expected="1 or more")
        self.complete, self.name, self.threads = complete, name, threads

    @classmethod
    def openai(
        cls,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        name: str = "",
        options: dict[str, Any] | None = None,
        threads: int = 8,
        timeout: float = 120,
    ) -> LanguageModel:
        """A model behind an OpenAI-compatible endpoint, through the `openai` package.

        A reply that does not come in time, a connection that fails, and an endpoint that is busy or broken (429, 5xx)
        are tried twice more: one that hangs is given up after three times `timeout`.

        Args:
            model: Its name there.
            base_url: The endpoint; OPENAI_BASE_URL or OpenAI's own by default.
            api_key: OPENAI_API_KEY by default; an endpoint of your own may need none.
            name: By default made of the endpoint, the model and the options.
            options: Sent with each request in place of `{"temperature": 0}`.
            threads: How many replies are waited for at once.
            timeout: Seconds that a reply may take. A model that runs on a CPU, or thinks for long, may need more.

        Raises:
            MissingExtraError: `openai` is not installed.
            InvalidInputError: there is no API key, or the timeout is no time.
        """
        try:
            client_of = importlib.import_module("openai").OpenAI
        except ImportError as problem:
            raise MissingExtraError(
                "a language model behind an endpoint needs a package that is not installed",
                found="no openai",
                remedy="pip install 'mlr-rag[llm]'",
            ) from problem
        endpoint = base_url or os.environ.get("OPENAI_BASE_URL")
        key = api_key or os.environ.get("OPENAI_API_KEY") or ("none" if endpoint else "")
        if not key:
            raise InvalidInputError(
                "no API key",
                expected="api_key=, or OPENAI_API_KEY",
                remedy="For an endpoint of your own pass base_url.",
            )
        if not 0 < timeout < float("inf"):
            raise InvalidInputError("timeout is no time to wait", found=timeout, expected="seconds, above 0")
        client = client_of(base_url=endpoint, api_key=key, max_retries=_RETRIES, timeout=timeout)
        sent = {"temperature": 0} if options is None else options

        def complete(prompt: str) -> str:
            message = [{"role": "user", "content": prompt}]
            reply = client.chat.completions.create(model=model, messages=message, **sent)
            return (reply.choices[0].message.content or "") if reply.choices else ""

        settings = json.dumps(sent, sort_keys=True, default=str)
        return cls(complete, name or f"{client.base_url} {model} {settings}", threads)

    @classmethod
    def langchain(cls, llm: Any, name: str = "", threads: int = 8) -> LanguageModel:
        """An LLM or chat model of LangChain; `name` by default from what it calls its model, and its temperature."""

        def complete(prompt: str) -> str:
            reply = llm.invoke(prompt)
            content = getattr(reply, "content", reply)
            blocks = [content] if isinstance(content, str) else content
            return "".join(block if isinstance(block, str) else block.get("text", "") for block in blocks)

        called = getattr(llm, "model_name", None) or getattr(llm, "model", None)
        return cls(complete, name or _name(llm, called), threads)

    @classmethod
    def llama_index(cls, llm: Any, name: str = "", threads: int = 8) -> LanguageModel:
        """An LLM of LlamaIndex; `name` by default from what it calls its model, and its temperature."""
        called = llm.metadata.model_name
        return cls(
            lambda prompt: str(llm.complete(prompt).text),
            name or _name(llm, None if called == "unknown" else called),
            threads,
        )

    @classmethod
    def transformers(cls, model: str | Path, max_tokens: int = 256, device: str | None = None) -> LanguageModel:
        """A causal model of a folder or the hub, run here: one prompt after the other, and always the likeliest token.

        Safetensors only, no code from its folder, and no network where none is needed. Where it has a chat template,
        a prompt is a user's message, and a model that can do without thinking aloud is told to.

        Args:
            model: A folder or hub id.
            max_tokens: Of a reply.
            device: By default a GPU, if there is one.

        Raises:
            ModelNotFoundError, UnsafeModelError.
            ModelError: it cannot be loaded, as something that is no causal model.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        from mlr_rag.model.identity import hash_bytes, weight_bytes
        from mlr_rag.model.loading import check_safe
        from mlr_rag.model.names import resolve

        folder = resolve(model)
        check_safe(folder)
        try:
            safe = {"local_files_only": True, "trust_remote_code": False}
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, **safe)
            network: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **safe)
        except Exception as problem:  # many libraries read a model's files, each with errors of its own
            raise ModelError(
                f"the language model in {folder} cannot be loaded",
                found=f"{type(problem).__name__} {problem!s:.200}",
                expected="a causal model of transformers",
            ) from problem
        network.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        ends = network.generation_config.eos_token_id
        ends = tokenizer.eos_token_id if ends is None else ends
        last = ends[0] if isinstance(ends, list) else ends
        padding = last if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        settings: Any = GenerationConfig  # which has no types
        how = settings(do_sample=False, max_new_tokens=max_tokens, eos_token_id=ends, pad_token_id=padding)
        lock = threading.Lock()  # neither a fast tokenizer nor a small machine bears two at once

        def complete(prompt: str) -> str:
            text = prompt
            if tokenizer.chat_template:
                text = tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}],
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=False,
                )
            with lock, torch.inference_mode():
                ids = tokenizer(text, return_tensors="pt", add_special_tokens=not tokenizer.chat_template)["input_ids"]
                ids = ids.to(network.device)
                reply = network.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)
            return str(tokenizer.decode(reply[0, ids.shape[1] :], skip_special_tokens=True))

        weights = hash_bytes(weight_bytes(network))
        return cls(complete, f"transformers {weights} {network.dtype} at most {max_tokens} tokens", threads=1)


def as_language_model(source: Any, name: str = "") -> LanguageModel:
    """The LanguageModel that something is, or can be; no framework is imported to recognize it.

    Args:
        source: A LanguageModel; "http://localhost:11434/v1#qwen3", an OpenAI-compatible endpoint and the model's name
            there; the folder or hub id of a causal model of transformers; an LLM or chat model of LangChain; an LLM of
            LlamaIndex; a function from a prompt to a reply.
        name: Of what has none of its own (a function, some LLMs): one that you change whenever the replies change.

    Raises:
        InvalidInputError: it is none of these, or lacks a name.
        MissingExtraError, ModelNotFoundError, UnsafeModelError, ModelError: see the LanguageModel that it would be.
    """
    if isinstance(source, LanguageModel):
        return source
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        endpoint, _, model = source.partition("#")
        if not model:
            raise InvalidInputError(
                "the endpoint does not say which model",
                found=source,
                expected="the model's name after a #",
                remedy=f"{endpoint}#name",
            )
        return LanguageModel.openai(model, endpoint, name=name)
    if isinstance(source, (str, Path)):
        return LanguageModel.transformers(source)
    if hasattr(source, "invoke"):
        return LanguageModel.langchain(source, name)
    if hasattr(source, "complete") and hasattr(source, "metadata"):
        return LanguageModel.llama_index(source, name)
    if callable(source):
        return LanguageModel(source, name)
    raise InvalidInputError(
        "not a language model",
        found=f"{type(source).__name__} {source!r:.80}",
        expected="an endpoint's URL with #model, a folder or hub id, an LLM of LangChain or LlamaIndex, or a function",
    )


def in_threads(
    ask: Callable[[Item], Reply], items: Sequence[Item], threads: int
) -> tuple[list[Reply | None], BaseException | None]:
    """What `ask` gives for each item, None where it gave nothing, and the first problem, if there was one.

    After a problem nothing more is asked for, as replies cost money; those under way are waited for, and kept.
    """
    stopped = threading.Event()

    def unless_stopped(item: Item) -> Reply | None:
        if stopped.is_set():
            return None
        try:
            return ask(item)
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(threads) as pool:
        try:
            asked = [pool.submit(unless_stopped, item) for item in items]
            wait(asked)
        finally:
            stopped.set()  # also at an interrupt
    problem = next((each.exception() for each in asked if each.exception()), None)
    return [None if each.exception() else each.result() for each in asked], problem


def without_thoughts(reply: str) -> str:
    """A reply less what a reasoning model thought before it."""
    return _THOUGHT.sub("", reply)


def _name(llm: Any, model: str | None) -> str:
    """The model's name and temperature; "" where it tells no name."""
    return f"{type(llm).__name__} {model} temperature {getattr(llm, 'temperature', None)}" if model else ""
