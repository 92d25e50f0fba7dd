"""Words, sentences and titles of plain text, by rules that need no model."""

from __future__ import annotations

import re

Span = tuple[int, int]

# Scripts, as the inside of a character class. A Chinese or Japanese character counts as a word.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
SPACELESS = _CJK + "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # and Thai, Lao, Burmese and Khmer
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:['’.-][^\W_{_CJK}]+)*")
_END = re.compile(r"""[.!?]+["'”’)\]]*(?=\s|$)|[。！？]+|\n\s*\n|\n(?=\s*(?:[-*•#>]|\d+[.)]\s))""")
_SHORT_FORMS = "e.g i.e vs al fig figs dr mr mrs ms prof st no approx ca cf eq ref inc jr u.s viz"
_ABBREVIATIONS = frozenset(_SHORT_FORMS.split())
_VISIBLE = re.compile(r"\S")
_MARKUP = re.compile(r"^[\s#>*=_-]+|[\s#*=_:-]+$")
_LINE = re.compile(r"[^\n]+")
_ASIDE = re.compile(r"\s*(?:\([^()]*\)|\[[^\[\]]*\])")

LONGEST_TITLE = 25  # words
# What the parts of a text are called, as abstracts have them.
_LABEL_WORDS = """
    abstract aim aims background conclusion conclusions context design discussion findings hypothesis importance
    interpretation introduction method methods objective objectives overview purpose question rationale relevance
    result results scope setting significance summary
"""
LABELS = frozenset(_LABEL_WORDS.split())
_LABEL = re.compile(rf"^(?:(?i:{'|'.join(sorted(LABELS))})\b(?:(?i: and )|\s*/\s*)?\s*)+(?::|(?=(?<=\s)[A-Z]))\s*")


def words(text: str) -> list[str]:
    """The words as they stand: letters and digits, with the apostrophes, hyphens and full stops inside them."""
    return _WORD.findall(text)


def word_spans(text: str) -> list[Span]:
    """Where the words begin and end."""
    return [match.span() for match in _WORD.finditer(text)]


def sentences(text: str) -> list[Span]:
    """Where the sentences begin and end, less white space; a blank line ends one, and so does a list's next item."""
    found, start = [], 0
    for match in _END.finditer(text):
        if _ends(text, match):
            found.append((start, match.end()))
            start = match.end()
    found.append((start, len(text)))
    stripped = ((a + len(text[a:b]) - len(text[a:b].lstrip()), b) for a, b in found)
    return [(a, a + len(text[a:b].rstrip())) for a, b in stripped if text[a:b].strip()]


def _ends(text: str, match: re.Match[str]) -> bool:
    following = _VISIBLE.search(text, match.end())
    mark, after = match[0], following[0] if following else ""
    if not mark.startswith(".") or not after:
        return True
    before = text[max(0, match.start() - 12) : match.start()]
    last = before.split()[-1].lower() if before.split() else ""
    if before.endswith(" "):  # " . " as some old collections write it
        return after.isalpha()
    return not after.islower() and last.lstrip("(") not in _ABBREVIATIONS and (len(last) > 1 or last.isdigit())


def plain(sentence: str) -> str:
    """A sentence as a searcher would type it: no label before it, no asides in brackets, no full stop."""
    without = _ASIDE.sub("", _LABEL.sub("", " ".join(sentence.split())))
    return without.strip(" \t.,;:*#->•\"'“”")


def first_line(text: str) -> Span | None:
    """Where the first line is, if more follow and it looks like a title: few words, and no full stop."""
    lines = _LINE.finditer(text)
    line = next((match for match in lines if match[0].strip()), None)
    if line is None or not text[line.end() :].strip() or not looks_like_title(line[0]):
        return None
    return line.span()


def headings(text: str) -> list[str]:
    """The lines that are marked as headings, as in Markdown, in order."""
    marked = (match[0] for match in _LINE.finditer(text) if match[0].lstrip().startswith("#"))
    return [without_markup(line) for line in marked if looks_like_title(line)]


def looks_like_title(line: str) -> bool:
    """Whether it is 1 to 25 words with no full stop at their end."""
    text = without_markup(line)
    return 1 <= len(words(text)) <= LONGEST_TITLE and text[-1] not in ".,;!。"


def without_markup(line: str) -> str:
    """A heading's words, less its marks."""
    return _MARKUP.sub("", line)
