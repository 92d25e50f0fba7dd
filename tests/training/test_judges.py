"""LLMJudge: what it asks, what counts as a grade, and the three ways to a model."""

from __future__ import annotations

import importlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from mlr_rag.errors import InvalidInputError, MissingExtraError, TeacherError
from mlr_rag.training.teachers.judges import LLMJudge
from mlr_rag.training.teachers.scores import ScoreCache
from mlr_rag.training.teachers.teacher import as_teacher

PAIRS = [("capital of france", "paris is the capital"), ("kettle", "a stone bridge"), ("river", "the river {x} %s")]


class Model:
    """Gives the replies in turn, the last one for ever."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.prompts, self._lock = replies, [], threading.Lock()

    def __call__(self, prompt: str) -> str:
        with self._lock:
            self.prompts.append(prompt)
            return self.replies[min(len(self.prompts), len(self.replies)) - 1]


class Counting:
    """Counts the replies of a function."""

    def __init__(self, complete: Any) -> None:
        self.complete, self.count, self._lock = complete, 0, threading.Lock()

    def __call__(self, prompt: str) -> str:
        with self._lock:
            self.count += 1
        return self.complete(prompt)


def by_length(prompt: str) -> str:
    """A grade that tells the pairs apart."""
    return str(next(grade for grade, (_, passage) in enumerate(PAIRS, 3) if passage in prompt))


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("7", 7),
        (" 10\n", 10),
        ("0", 0),
        ("**8**", 8),
        ("Score: 4", 4),
        ("grade = 6.", 6),
        ("9/10", 9),
        ("<think>\nat first 3, but\n</think>\n\n5", 5),
    ],
)
def test_one_whole_number_from_0_to_10_is_a_grade(reply: str, grade: int) -> None:
    model = Model(reply)
    assert LLMJudge(model, "m").score(PAIRS[:1]).tolist() == [grade]
    assert len(model.prompts) == 1


@pytest.mark.parametrize(
    "reply", ["", "11", "100", "-3", "7.5", "seven", "7 or 8", "1/2", "The passage scores 7", "7\n8", "<think>7", "9/5"]
)
def test_anything_else_is_asked_for_again_and_then_an_error_that_keeps_nothing(reply: str) -> None:
    model, cache = Model(reply), ScoreCache()
    with pytest.raises(TeacherError, match="no grade"):
        cache.score(LLMJudge(model, "m"), PAIRS[:1])
    assert cache.count() == 0
    first, second = model.prompts
    assert second.startswith(first)
    assert "Reply with the number alone" in second.removeprefix(first)


MANY = [("query", f"passage {number:02} ") for number in range(16)]


def refuses_nine(prompt: str) -> str:
    return "I cannot say." if "passage 09" in prompt else "5"


def test_a_pair_that_cannot_be_graded_loses_no_other_grade_and_no_reply_is_paid_for_twice() -> None:
    model, cache = Counting(refuses_nine), ScoreCache()
    for run in (1, 2, 3):
        with pytest.raises(TeacherError, match=r"Pass skip_failures=True .* of \d+ are kept"):
            cache.score(LLMJudge(model, "m", threads=1), MANY)
        assert cache.count() >= 9
        assert model.count == cache.count() + 2 * run
    assert cache.score(LLMJudge(model, "m", skip_failures=True), MANY)[:9].tolist() == [5] * 9
    assert (cache.count(), model.count) == (15, 15 + 2 * 4)


def test_after_a_failure_the_replies_under_way_are_kept_and_few_others_are_begun() -> None:
    second = threading.Event()

    def complete(prompt: str) -> str:
        if "passage 00" in prompt:
            second.wait(10)
            raise ConnectionError("refused")
        second.set()
        time.sleep(0.1)
        return "5"

    model = Counting(complete)
    with pytest.raises(TeacherError, match="ConnectionError refused") as caught:
        LLMJudge(model, "m", threads=2).score(MANY)
    assert model.count <= 8
    assert np.isnan(caught.value.scores[0])
    assert caught.value.scores[1] == 5
    assert np.isfinite(caught.value.scores).sum() == model.count - 1


def test_skipped_failures_are_no_scores_counted_and_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    model, cache = Counting(refuses_nine), ScoreCache()
    judge = LLMJudge(model, "m", skip_failures=True)
    for run in (1, 2):
        scores = cache.score(judge, MANY)
        assert [place for place, score in enumerate(scores) if score != 5] == [9]
        assert (cache.skipped, cache.count(), model.count) == (run, 15, 15 + 2 * run)
    assert "1 of 16 pairs could not be scored" in caplog.text
    assert judge.fingerprint == LLMJudge(model, "m").fingerprint


def test_a_model_that_does_not_answer_is_an_error_though_failures_are_skipped() -> None:
    def complete(prompt: str) -> str:
        raise ConnectionError("refused")

    with pytest.raises(TeacherError, match="ConnectionError refused"):
        ScoreCache().score(LLMJudge(complete, "m", skip_failures=True), MANY)


def test_a_good_reply_to_the_reminder_counts() -> None:
    assert LLMJudge(Model("Well, it depends.", "6"), "m").score(PAIRS[:1]).tolist() == [6]


def test_the_prompt_holds_both_texts_as_they_are_between_marks_that_the_texts_do_not_know() -> None:
    model = Model("1")
    LLMJudge(model, "m", threads=1).score([*PAIRS, ("kettle", "other")])
    marks = set()
    for (query, passage), prompt in zip([*PAIRS, ("kettle", "other")], model.prompts, strict=True):
        mark = next(line for line in prompt.splitlines() if line.startswith("["))
        assert f"\n{mark}\n{query}\n{mark}\n" in prompt
        assert f"\n{mark}\n{passage}\n{mark}\n" in prompt
        marks.add(mark)
    assert len(marks) == 4


def test_a_passage_is_read_up_to_max_characters_and_the_cache_knows_it() -> None:
    model, cache = Model("2"), ScoreCache()
    judge = LLMJudge(model, "m", max_characters=5)
    cache.score(judge, [("q", "abcdefgh")])
    assert "\nabcde\n" in model.prompts[0]
    assert not cache.known(LLMJudge(model, "m", max_characters=6), [("q", "abcdefgh")]).any()


def test_threads_ask_at_once_and_grades_keep_their_order() -> None:
    together = threading.Barrier(3, timeout=10)

    def complete(prompt: str) -> str:
        together.wait()
        return by_length(prompt)

    assert LLMJudge(complete, "m", threads=3).score(PAIRS).tolist() == [3, 4, 5]


def test_a_model_that_fails_is_a_teacher_that_fails() -> None:
    def complete(prompt: str) -> str:
        raise ConnectionError("refused")

    with pytest.raises(TeacherError, match="ConnectionError refused"):
        ScoreCache().score(LLMJudge(complete, "m"), PAIRS)


def test_the_fingerprint_tells_models_apart() -> None:
    assert LLMJudge(Model("1"), "a").fingerprint == LLMJudge(Model("2"), "a").fingerprint
    assert LLMJudge(Model("1"), "a").fingerprint != LLMJudge(Model("1"), "b").fingerprint
    with pytest.raises(InvalidInputError, match="no name"):
        LLMJudge(Model("1"), "")


@pytest.mark.parametrize("option", ["threads", "max_characters"])
def test_limits_below_one_are_refused(option: str) -> None:
    with pytest.raises(InvalidInputError, match=option):
        LLMJudge(Model("1"), "m", **{option: 0})


# OpenAI-compatible endpoints


@pytest.fixture
def endpoint() -> Iterator[Any]:
    """A server that grades by `by_length`, and keeps what it was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
            status, content = 200, by_length(body["messages"][0]["content"])
            if body["model"] == "broken":
                status = 400
            if body["model"] == "silent":
                content = None
            message = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
            reply = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [message]}
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.asked, server.url = asked, f"http://127.0.0.1:{server.server_port}/v1"
    yield server
    server.shutdown()
    server.server_close()


def test_an_endpoint_is_asked_at_temperature_0_and_needs_no_key_of_openai(
    endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judge = LLMJudge.openai("tiny", base_url=endpoint.url, threads=2)
    cache = ScoreCache()
    assert cache.score(judge, PAIRS).tolist() == [3, 4, 5]
    assert {(each["path"], each["model"], each["temperature"]) for each in endpoint.asked} == {
        ("/v1/chat/completions", "tiny", 0)
    }
    assert cache.score(LLMJudge.openai("tiny", base_url=endpoint.url), PAIRS).tolist() == [3, 4, 5]
    assert len(endpoint.asked) == 3


def test_a_key_and_options_reach_the_endpoint_and_the_key_not_the_fingerprint(endpoint: Any) -> None:
    judge = LLMJudge.openai("tiny", base_url=endpoint.url, api_key="sk-secret", options={"max_tokens": 4})
    judge.score(PAIRS[:1])
    (asked,) = endpoint.asked
    assert (asked["key"], asked["max_tokens"]) == ("Bearer sk-secret", 4)
    assert "temperature" not in asked
    assert "secret" not in judge.fingerprint
    assert judge.fingerprint != LLMJudge.openai("tiny", base_url=endpoint.url, api_key="sk-secret").fingerprint


def test_an_endpoint_that_refuses_or_says_nothing_is_a_teacher_that_fails(endpoint: Any) -> None:
    with pytest.raises(TeacherError, match="BadRequestError"):
        ScoreCache().score(LLMJudge.openai("broken", base_url=endpoint.url), PAIRS)
    with pytest.raises(TeacherError, match="no grade"):
        ScoreCache().score(LLMJudge.openai("silent", base_url=endpoint.url), PAIRS)


def test_no_key_for_openai_itself_is_said_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InvalidInputError, match="OPENAI_API_KEY"):
        LLMJudge.openai("gpt")


def test_without_openai_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"mlr-rag\[llm\]"):
        LLMJudge.openai("gpt", api_key="x")


# LangChain and LlamaIndex


def test_a_langchain_chat_model_and_llm_become_judges() -> None:
    fakes = pytest.importorskip("langchain_core.language_models.fake_chat_models")
    llms = pytest.importorskip("langchain_core.language_models.fake")
    for llm in (fakes.FakeListChatModel(responses=["7"]), llms.FakeListLLM(responses=["7"])):
        assert as_teacher(llm, fingerprint="fake 1").score(PAIRS).tolist() == [7, 7, 7]
        with pytest.raises(InvalidInputError, match="no name"):
            as_teacher(llm)


def test_a_langchain_model_s_own_name_and_temperature_are_its_fingerprint() -> None:
    core = pytest.importorskip("langchain_core.language_models")
    messages = pytest.importorskip("langchain_core.messages")
    outputs = pytest.importorskip("langchain_core.outputs")

    class Named(core.BaseChatModel):
        model_name: str = "named-1"
        temperature: float = 0.0

        @property
        def _llm_type(self) -> str:
            return "named"

        def _generate(self, messages_: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> Any:
            blocks = messages.AIMessage(content=[{"type": "text", "text": "1"}, {"type": "text", "text": "0"}])
            return outputs.ChatResult(generations=[outputs.ChatGeneration(message=blocks)])

    judge = as_teacher(Named())
    assert judge.score(PAIRS[:1]).tolist() == [10]
    assert "named-1" in judge.fingerprint
    assert judge.fingerprint != as_teacher(Named(temperature=0.5)).fingerprint


def test_a_llama_index_llm_becomes_a_judge() -> None:
    llms = pytest.importorskip("llama_index.core.llms")

    class Grading(llms.CustomLLM):
        called: str = "unknown"

        @property
        def metadata(self) -> Any:
            return llms.LLMMetadata(model_name=self.called)

        def complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
            return llms.CompletionResponse(text=by_length(prompt))

        def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
            raise NotImplementedError

    assert as_teacher(Grading(called="grading-1")).score(PAIRS).tolist() == [3, 4, 5]
    assert "grading-1" in as_teacher(Grading(called="grading-1")).fingerprint
    with pytest.raises(InvalidInputError, match="no name"):
        as_teacher(Grading())
