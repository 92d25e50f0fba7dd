from __future__ import annotations

import threading

import pytest

from mlr_rag.gate import Gate


def in_thread(gate: Gate, exclusive: bool, done: threading.Event) -> threading.Thread:
    def work() -> None:
        with gate.exclusive() if exclusive else gate.shared():
            done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_writers_pass_together() -> None:
    gate, done = Gate(), threading.Event()
    with gate.shared():
        in_thread(gate, False, done).join(10)
        assert done.is_set()


def test_the_switch_waits_for_writers_and_they_for_it() -> None:
    gate, switched, written = Gate(), threading.Event(), threading.Event()
    with gate.shared():
        switching = in_thread(gate, True, switched)
        assert not switched.wait(0.2)
        writing = in_thread(gate, False, written)
        assert not written.wait(0.2)
    for thread in (switching, writing):
        thread.join(10)
    assert switched.is_set()
    assert written.is_set()


def test_a_writer_waits_while_it_switches() -> None:
    gate, written = Gate(), threading.Event()
    with gate.exclusive():
        writing = in_thread(gate, False, written)
        assert not written.wait(0.2)
    writing.join(10)
    assert written.is_set()


def test_a_switch_that_is_interrupted_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, written = Gate(), threading.Event()

    def interrupted(predicate: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(gate._changed, "wait_for", interrupted)
        with pytest.raises(KeyboardInterrupt), gate.exclusive():
            pass
    in_thread(gate, False, written).join(10)
    assert written.is_set()
