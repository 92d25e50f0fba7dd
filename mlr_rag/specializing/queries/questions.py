"""Questions and claims out of English sentences, by rules that know a few words."""

from __future__ import annotations

import re

from mlr_rag.specializing.queries.sentences import words
from mlr_rag.specializing.queries.vocabulary import STOP_WORDS

# What cannot stand alone begins with one of these: it speaks of what was said before.
_BACK_WORDS = """
    this these those that it its they their them he his him she her we our i my such so then thus hence therefore
    however moreover furthermore also but and or nor yet both another other others there here if when while since
    because although though finally instead meanwhile similarly additionally conversely nevertheless consequently
    again second third one some many most all each it's they're let's you your
"""
_POINTS_BACK = frozenset(_BACK_WORDS.split())
_OPENING = re.compile(
    r"^(?:\w+ly|however|therefore|thus|hence|moreover|furthermore|overall|together|taken together|here|for example"
    r"|in (?:addition|contrast|conclusion|summary|fact|general|particular|this (?:study|paper|article|review))),\s*",
    re.IGNORECASE,
)
_SAYS_THAT = re.compile(
    r"\b(?:show(?:s|ed|n|ing)?|suggest(?:s|ed|ing)?|indicat(?:e|es|ed|ing)|demonstrat(?:e|es|ed|ing)|f(?:ound|ind|inds)"
    r"|conclu(?:de|des|ded|ding)|reveal(?:s|ed|ing)?|report(?:s|ed)?|confirm(?:s|ed|ing)?|evidence|means|believed"
    r"|propos(?:e|es|ed)|hypothesi[sz]ed?|known|established|noted|observed)\s+that\s+",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"\s*(?:;|—|–| - |, (?:which|who|and|but|or|where|while|whereas|although|because|so|with|including|as|such)\b"
    r"| (?:because|whereas|although|while|which|who|that) )"
)
_BE = ("is", "are", "was", "were")
_VERB = re.compile(
    rf"\b({'|'.join(_BE)}|can|may|might|will|has|have|had|causes?|caused|contains?|includes?|provides?|requires?"
    r"|produces?|affects?|allows?|increases?|increased|reduces?|reduced|improves?|improved|occurs?|occurred|helps?"
    r"|leads?|led|plays?|played|became|becomes?|won|wrote|founded|invented|discovered|develops?|developed|depends?)\s+"
)
_YEAR = re.compile(r"\s*\b(?:in|on|since|during)\s+(?:[A-Za-z]+\s+)?(?:\d{1,2},?\s+)?(?:1\d|20)\d\d\b")
_DEFINES = re.compile(r"(?:an?|the|one of|any|when)\s", re.IGNORECASE)
_ASIDE = re.compile(r"^(?:also|usually|often|typically|normally|generally|commonly|now|currently|only|sometimes)\s+")
_NOT_SAID_OF_IT = re.compile(
    r"(?:not|to|in|on|at|for|by|from|of|with|as|after|before|between|been|thus|then|therefore)\b"
)
_HAPPENED = re.compile(r"(?:\w+ed|born|held|built|made|won|written|founded|begun|sold|sent|given|taken)\b")
# What a text says of itself is nothing that people search for.
_OF_ITSELF = re.compile(
    r"\b(?:aims?|objectives?|purpose|goal|results?|stud(?:y|ies)|paper|article|review|methods?|data|findings?|authors?"
    r"|analys[ei]s|present(?:ed)?|described?|discussed|given|made|shown|compared|obtained|performed|investigated"
    r"|examined|reported|derived|considered|following|example|patients|participants|subjects)\b",
    re.IGNORECASE,
)
_LOOSE = STOP_WORDS | {"due", "based", "able", "according", "associated"}
_LONGEST_SUBJECT, _LONGEST_REST, _LONGEST_CLAIM = 6, 7, 22  # words


def stands_alone(sentence: str) -> bool:
    """Whether it can be understood without what comes before it, as far as its first word tells."""
    found = words(sentence)
    return bool(found) and found[0].lower() not in _POINTS_BACK


def claim(sentence: str) -> str:
    """What a sentence claims: what follows "we found that" and the like, up to the end of the clause if it is long.

    "" where that is too long or too short, or does not stand alone.
    """
    said = _OPENING.sub("", _SAYS_THAT.split(sentence)[-1].strip())
    if len(words(said)) > _LONGEST_CLAIM:
        said = _less_loose_end(_CLAUSE.split(said)[0].split())
    return said.strip(" ,") if 5 <= len(words(said)) <= _LONGEST_CLAIM and stands_alone(said) else ""


def questions(sentence: str) -> list[str]:
    """The questions that a statement answers: what its subject is, what it is said of, and when it was.

    None where it does not stand alone, or has none of the verbs that are known.
    """
    sentence = _OPENING.sub("", sentence)
    verb = _VERB.search(sentence)
    if verb is None or not stands_alone(sentence):
        return []
    subject = sentence[: verb.start()].strip(" ,")
    rest = _ASIDE.sub("", _CLAUSE.split(sentence[verb.end() :])[0].strip(" ,."))
    if not _is_noun_phrase(subject) or _OF_ITSELF.search(subject):
        return []
    if words(subject)[0].lower() in STOP_WORDS:
        subject = subject[0].lower() + subject[1:]
    made = []
    year = _YEAR.search(rest)
    if verb[1] in _BE and year and _HAPPENED.match(rest):
        made.append(f"when {verb[1]} {subject} {_shortened(rest[: year.start()])}")
    elif verb[1] in _BE and _DEFINES.match(rest):
        made.append(f"what {verb[1]} {subject}")
    short = _shortened(rest)
    content = [word for word in words(short) if word.lower() not in STOP_WORDS]
    if len(content) >= 3 and not _OF_ITSELF.search(short) and not _NOT_SAID_OF_IT.match(short):
        made.append(f"what {verb[1]} {short}")
    return made


def is_question(sentence: str) -> bool:
    """Whether it is a question that one might ask of a search: as an answer to it, the text goes on."""
    return sentence.rstrip().endswith(("?", "？")) and 4 <= len(words(sentence)) <= _LONGEST_CLAIM


def _is_noun_phrase(text: str) -> bool:
    found = [word.lower() for word in words(text)]
    return (
        1 <= len(found) <= _LONGEST_SUBJECT
        and "," not in text
        and found[-1] not in STOP_WORDS
        and (found[0] not in STOP_WORDS or found[0] in ("a", "an", "the"))
    )


def _shortened(text: str) -> str:
    """Its first words, so that no sentence is copied whole."""
    return _less_loose_end(text.split()[:_LONGEST_REST])


def _less_loose_end(kept: list[str]) -> str:
    """The words, less those at the end that wait for others."""
    while kept and kept[-1].lower().strip(",") in _LOOSE:
        kept.pop()
    return " ".join(kept).strip(" ,.;:")
