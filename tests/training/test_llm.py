"""LanguageModel: the ways to one, and what it is told apart by."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from mlr_rag.errors import InvalidInputError, LanguageModelError, ModelError, ModelNotFoundError, UnsafeModelError
from mlr_rag.specializing.queries.generating import write_queries
from mlr_rag.training.llm import LanguageModel, as_language_model, in_threads
from tests.tiny import CONFIGS, tokenizer


def test_a_language_model_is_itself_and_a_function_needs_a_name() -> None:
    model = LanguageModel(str.upper, "upper")
    assert as_language_model(model) is model
    assert as_language_model(str.upper, "upper").complete("a") == "A"
    with pytest.raises(InvalidInputError, match="no name"):
        as_language_model(str.upper)
    with pytest.raises(InvalidInputError, match="threads"):
        LanguageModel(str.upper, "upper", threads=0)


def test_what_is_no_language_model_is_refused_with_what_would_be_one() -> None:
    with pytest.raises(InvalidInputError, match=r"not a language model: found int 3, expected an endpoint's URL"):
        as_language_model(3)


def test_frameworks_are_recognized_by_what_they_do_without_being_imported() -> None:
    class Chain:
        model_name, temperature = "chain-1", 0.5

        def invoke(self, prompt: str) -> str:
            return prompt + "!"

    class Index:
        class metadata:
            model_name = "index-1"

        temperature = 0.1

        def complete(self, prompt: str) -> Any:
            return type("Reply", (), {"text": prompt + "?"})

    chain, index = as_language_model(Chain()), as_language_model(Index())
    assert (chain.complete("a"), index.complete("a")) == ("a!", "a?")
    assert (chain.name, index.name) == ("Chain chain-1 temperature 0.5", "Index index-1 temperature 0.1")


@pytest.fixture
def endpoint() -> Iterator[Any]:
    """An OpenAI-compatible server that is busy as often as it is told, and then repeats the prompt's last word."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(body)
            busy = len(server.asked) <= server.busy
            server.released.wait(20 if len(server.asked) <= server.hangs else 0)
            content = "about " + body["messages"][0]["content"].split()[-1]
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
            reply = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
            data = json.dumps({"error": {"message": "busy"}} if busy else reply).encode()
            self.send_response(503 if busy else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("retry-after-ms", "1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):  # who has given up
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.busy, server.hangs, server.released = [], 0, 0, threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def test_a_url_with_the_model_after_a_hash_is_an_endpoint_at_temperature_0(endpoint: Any) -> None:
    model = as_language_model(f"{endpoint.url}#tiny:1b")
    assert model.complete("tell me of kettles") == "about kettles"
    assert (endpoint.asked[0]["model"], endpoint.asked[0]["temperature"]) == ("tiny:1b", 0)
    assert model.name == f'{endpoint.url}/ tiny:1b {{"temperature": 0}}'
    with pytest.raises(InvalidInputError, match=f"{endpoint.url}#name"):
        as_language_model(endpoint.url)


def test_a_busy_endpoint_is_asked_again_twice_and_no_more(endpoint: Any) -> None:
    endpoint.busy = 2
    model = as_language_model(f"{endpoint.url}#tiny")
    assert model.complete("kettles") == "about kettles"
    endpoint.asked.clear()
    endpoint.busy = 3
    with pytest.raises(Exception, match="503"):
        model.complete("kettles")
    assert len(endpoint.asked) == 3


def test_an_endpoint_that_hangs_is_given_up_after_three_times_the_timeout(endpoint: Any) -> None:
    endpoint.hangs = 1
    model = LanguageModel.openai("tiny", endpoint.url, timeout=0.3)
    assert model.complete("kettles") == "about kettles"
    endpoint.asked.clear()
    endpoint.hangs = 3
    with pytest.raises(LanguageModelError, match=r"APITimeoutError.*replies in time"):
        write_queries({"a": "some text"}, None, model)
    assert len(endpoint.asked) == 3


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_that_is_no_time_to_wait_is_refused(timeout: float) -> None:
    with pytest.raises(InvalidInputError, match="timeout"):
        LanguageModel.openai("tiny", "http://127.0.0.1:9/v1", timeout=timeout)


def test_an_endpoint_that_is_down_is_one_typed_error_with_a_remedy() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1#tiny"
    with pytest.raises(LanguageModelError, match=r"APIConnectionError.*can be reached"):
        write_queries({"a": "some text"}, None, url)


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random causal model."""
    folder = tmp_path_factory.mktemp("causal")
    torch.manual_seed(0)
    hf.Qwen3ForCausalLM(CONFIGS["qwen"]()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_a_folder_is_a_causal_model_that_replies_alike_and_within_its_limit(causal: Path) -> None:
    model = LanguageModel.transformers(causal, max_tokens=5, device="cpu")
    reply = model.complete("what is paris")
    assert reply == model.complete("what is paris")
    assert "what is paris" not in reply
    assert len(reply.split()) <= 5
    assert model.threads == 1
    assert model.name != LanguageModel.transformers(causal, max_tokens=6, device="cpu").name


def test_a_chat_template_wraps_the_prompt(causal: Path, tmp_path: Path) -> None:
    seen = []
    plain = hf.AutoTokenizer.from_pretrained(causal)
    plain.chat_template = "{% for message in messages %}{{ message.role }} {{ message.content }} bridge{% endfor %}"
    hf.AutoModelForCausalLM.from_pretrained(causal).save_pretrained(tmp_path)
    plain.save_pretrained(tmp_path)
    model = as_language_model(tmp_path)
    original = hf.PreTrainedTokenizerFast.__call__

    def spy(self: Any, text: str, **options: Any) -> Any:
        seen.append((text, options.get("add_special_tokens")))
        return original(self, text, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf.PreTrainedTokenizerBase, "__call__", spy)
        model.complete("what is paris")
    assert seen == [("user what is paris bridge", False)]


def test_pickled_weights_and_missing_or_other_models_are_refused(causal: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        as_language_model("./nowhere")
    for file in causal.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises((UnsafeModelError, ModelError)):
        as_language_model(tmp_path)


def test_after_a_problem_what_is_done_is_kept_and_the_rest_not_asked_for() -> None:
    def ask(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item * 10

    replies, problem = in_threads(ask, list(range(100)), 1)
    assert replies == [0, 10] + [None] * 98
    assert str(problem) == "two"
