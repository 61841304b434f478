"""Which generated sentences are worth keeping, and where they mention the concept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from encyclo import english
from encyclo.types import Concept

FEWEST_WORDS = 4
ALIKE = 0.6
"""Two sentences are near-duplicates if they share this part of their words, not counting the mention."""
END = re.compile(r"[.!?]+[\"')]*(?=\s|$)")
ABBREVIATION = re.compile(r"(?:^|[\s(\"])(?:Mr|Mrs|Ms|Dr|St|Prof|No|vs|etc|e\.g|i\.e|[A-Z])\.$")
# Signs of code, links and tables; and the entries of the prompt's own dictionary.
MARKUP = re.compile(
    r"[\0<>{}\[\]|\\*_#=~^@/+]|https?|www\.|\w\.(?:com|org|net)\b|\w+ ?\([^)]*\), \w+:|\.{2,}|--"
)
STOP = (
    r"""\A(?:\s*\S[^\n]*\n"""  # a line's end
    r"""|(?:[^"]|"[^"]*")*?"""  # or, where no quote is open,
    r"""(?:(?<=[.!?])|(?<=[.!?]["')])|(?<=[.!?]["')]{2}))"""  # the end of a sentence
    r"""(?<!\b(?:Mr|Ms|Dr|St|No|vs)\.)(?<!\b(?:Mrs|etc|e\.g|i\.e)\.)(?<!\bProf\.)(?<!\b[A-Z]\.)\s)"""
)
"""Where a model stops writing: never before `sentence_end` finds an end, and rarely later."""
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def sentence_end(text: str) -> int | None:
    """Return where the first sentence of a growing text ends; None if it has not ended yet."""
    line = text.find("\n", len(text) - len(text.lstrip()))
    for end in END.finditer(text):
        # At the end of the text so far, a full stop may still be the point of a number.
        goes_on = end.end() < len(text)
        said = text[: end.end()]
        if goes_on and said.count('"') % 2 == 0 and not ABBREVIATION.search(said):
            return end.end() if line < 0 else min(line, end.end())
    return None if line < 0 else line


def find_mention(text: str, concept: Concept) -> tuple[int, int] | None:
    """Return the span of a generated text's first mention of the concept, inflected or not; None without one."""
    return english.find_mention(text, concept, by_rule=False, any_case=False, hyphen_joins=False)


def fault(text: str, concept: Concept, kept: Sequence[str]) -> str | None:
    """Return why a generated sentence can't be added to those already kept; None if it can."""
    mention = find_mention(text, concept)
    if mention is None:
        return "no mention"
    last = END.search(text, max(0, len(text) - 4))
    if not (last and last.end() == len(text)) or text[:1].islower():
        return "unfinished"
    words = [word.lower() for word in WORD.findall(text)]
    mention_words = [word.lower() for word in WORD.findall(text[slice(*mention)])]
    if len(words) - len(mention_words) < FEWEST_WORDS:
        return "too short"
    if MARKUP.search(text):
        return "markup"
    if text.count('"') % 2 or text.count("(") != text.count(")"):
        return "unbalanced quotes or brackets"
    if is_loop(words, mention_words):
        return "loop"
    if any(alike(text, other, mention_words) for other in kept):
        return "near-duplicate"
    return None


def is_loop(words: Sequence[str], mention: Sequence[str]) -> bool:
    """Return whether the words repeat as in a loop: three in a row, or one too often."""
    if any(count > 1 for count in Counter(zip(words, words[1:], words[2:], strict=False)).values()):
        return True
    if any(one == other for one, other in pairwise(words)):
        return True
    often = Counter(word for word in words if len(word) > 3)
    return any(count > (2 if word in mention else 1) + len(words) // 12 for word, count in often.items())


def alike(one: str, other: str, mention: Sequence[str]) -> bool:
    """Return whether two sentences share most of their words, not counting the mention."""
    left, right = ({w.lower() for w in WORD.findall(text)} - set(mention) for text in (one, other))
    return len(left & right) >= ALIKE * len(left | right)
