from __future__ import annotations

import random
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlr_rag.errors import MissingExtraError
from mlr_rag.specializing.duplicates import JACCARD, near_duplicates

VOCABULARY = [f"word{number}" for number in range(400)]


def together(*texts: str) -> bool:
    """Whether all of these texts are in one group."""
    return len(set(near_duplicates({str(place): text for place, text in enumerate(texts)}).values())) == 1


def passage(seed: int, length: int = 200) -> list[str]:
    return random.Random(seed).choices(VOCABULARY, k=length)


def changed(words: list[str], places: int, seed: int = 0) -> list[str]:
    """The same words but for some, evenly spread."""
    step = len(words) // places
    return [f"new{seed}x{place}" if place % step == 0 else word for place, word in enumerate(words)]


def test_case_width_punctuation_and_space_count_for_nothing() -> None:
    assert together("How do I list files?", "how do i  list ｆｉｌｅｓ", "How do I list: files")


def test_short_texts_are_their_words_without_stop_words_in_any_order() -> None:
    assert together("muscles in the human body", "human body, the muscles in it")
    assert not together("symptoms of Noonan syndrome", "symptoms of Down syndrome")
    assert not together("who founded Rome", "when was Rome founded")


def test_texts_of_stop_words_or_signs_alone_are_compared_as_they_are() -> None:
    assert together("to be or not to be", "To be, or not to be")
    assert not together("to be", "if it is")
    assert together("???", "???")
    assert not together("???", "!!!")


@pytest.mark.parametrize(("places", "same"), [(2, True), (5, True), (20, False), (50, False)])
def test_long_texts_are_runs_of_three_words(places: int, same: bool) -> None:
    words = passage(1)
    assert together(" ".join(words), " ".join(changed(words, places))) is same


def test_the_same_words_in_another_order_are_another_long_text() -> None:
    words = passage(1)
    assert not together(" ".join(words), " ".join(sorted(words)))


@pytest.mark.parametrize("length", range(26, 46))
def test_no_pair_falls_between_short_and_long(length: int) -> None:
    words = [f"w{place}" for place in range(length)]
    assert together(" ".join(words), " ".join(words[:-2]))


def test_near_duplicates_of_near_duplicates_are_in_one_group() -> None:
    words = [f"w{place}" for place in range(20)]
    steps = [" ".join([*(f"n{place}" for place in range(count)), *words[count:]]) for count in range(0, 12, 2)]
    assert not together(steps[0], steps[-1])
    assert together(*steps)


def test_a_group_has_its_smallest_id_for_a_name_and_a_lone_text_its_own() -> None:
    texts = {"c": "one two", "b": "One two.", "a": "three"}
    assert near_duplicates(texts) == {"a": "a", "b": "b", "c": "b"}
    assert near_duplicates({}) == {}


CHINESE = (
    "请在设置页面中重置您的密码，然后重新登录。如果您忘记了用户名，可以通过注册时使用的邮箱找回。"
    "发票可以在账户页面下载，保存期限为十年，逾期将无法再次获取。"
)
THAI = "กรุณารีเซ็ตรหัสผ่านของคุณในหน้าการตั้งค่าแล้วเข้าสู่ระบบอีกครั้ง หากคุณลืมชื่อผู้ใช้ คุณสามารถกู้คืนได้ทางอีเมล"


@pytest.mark.parametrize("text", [CHINESE, THAI])
def test_scripts_without_spaces_are_compared_by_their_characters(text: str) -> None:
    assert together(text, text[:40] + text[41:])
    assert together(text[:30], text[:28])
    assert not together(text[:30], text[30:60])
    assert not together(text, text[:40] + text[20:40] + text[60:])


def test_one_word_tells_short_questions_without_spaces_apart() -> None:
    assert together("如何重置密码", "如何重置密码？")
    assert not together("如何在北京注册公司账户", "如何在东京注册公司账户")
    assert not together("北京到上海的火车", "上海到北京的火车")


def test_a_thousand_texts_in_one_bucket_are_one_group() -> None:
    words = passage(3, 60)
    texts = {f"{number:04}": " ".join([*words, f"signed{number}"]) for number in range(1000)}
    assert set(near_duplicates(texts).values()) == {"0000"}


def shingles(text: str) -> set[str]:
    """Those of a long text, read from the rule."""
    words = re.findall(r"\w+", text.casefold())
    return {" ".join(words[place : place + 3]) for place in range(len(words) - 2)}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=2, max_size=12))
def test_groups_are_what_comparing_all_pairs_finds(seed: int, edits: list[tuple[int, int]]) -> None:
    texts = {
        str(place): " ".join(changed(passage(seed + which, 80), places, place))
        for place, (which, places) in enumerate(edits)
    }
    group = {id: {id} for id in texts}
    for one in texts:
        for other in texts:
            a, b = shingles(texts[one]), shingles(texts[other])
            if len(a & b) / len(a | b) >= JACCARD and other not in group[one]:
                group[one] |= group[other]
                for member in group[one]:
                    group[member] = group[one]
    found = near_duplicates(texts)
    assert found == {id: min(members) for id, members in group.items()}
    order = list(texts)
    random.Random(seed).shuffle(order)
    assert near_duplicates({id: texts[id] for id in order}) == found


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(MissingExtraError, match=r"mlr-rag\[train\]"):
        near_duplicates({"a": "one text"})
