"""WordNet's glosses: a definition and example sentences in one line.

    an unusually small individual; "a dwarf; hardly four feet"; "the dwarf of the family"- Charles Lamb

Quoted text is an example where it stands alone (at the beginning, after a semicolon, colon or comma, after
`e.g.` or a remark in brackets) and part of the definition elsewhere (in brackets, in `the phrase "on the job"`,
in `"dirty" is often used in combination`). The text after an example up to the next
semicolon, such as its author or a remark, belongs to neither.
"""

from __future__ import annotations

import re

_STANDS_ALONE = re.compile(r"(?:^|;|^\s*\([^()]*\)|\be\.g\.,?)\s*$")
_AFTER_COMMA_OR_COLON = re.compile(r"[,:]\s*$")
_GOES_ON = re.compile(r"\s*(?!or\b|and\b)[a-z]")
_INTRODUCTION = re.compile(r"(?:\b(?:as in )?e\.g\.|\bas in)$")


def split_gloss(gloss: str) -> tuple[str, tuple[str, ...]]:
    """Return (definition, examples) of a gloss; examples without their quotation marks."""
    pieces = " ".join(gloss.split()).split('"')
    if len(pieces) == 1:  # no example
        return _tidy(pieces[0]), ()
    if len(pieces) % 2 == 0:
        return _split_unbalanced(gloss)
    definition = segment = pieces[0]
    examples: list[str] = []
    for quoted, after in zip(pieces[1::2], pieces[2::2], strict=True):
        speech = quoted.endswith(",")
        if _is_example(definition, segment) and (speech or not _GOES_ON.match(after)):
            examples.append(quoted.strip())
            segment = after.partition(";")[2]
            definition += ";" + segment
        else:
            definition += f'"{quoted}"{after}'
            # "[]" replaces the quotation, so that a comma after it continues the definition.
            segment = after.rpartition(";")[2] if ";" in after else f"{segment}[]{after}"
    return _tidy(definition), tuple(example for example in examples if example)


def _is_example(definition: str, segment: str) -> bool:
    """Return whether a quotation is an example; `segment` is the part of `definition` after its last semicolon."""
    if definition.count("(") > definition.count(")"):
        return False
    if _STANDS_ALONE.search(segment):
        return True
    return "[]" not in segment and bool(_AFTER_COMMA_OR_COLON.search(segment))


def _split_unbalanced(gloss: str) -> tuple[str, tuple[str, ...]]:
    """Split a gloss that lacks a quotation mark (WordNet has a few): a part with one at an end is an example.

    An example that still has one inside is left out.
    """
    definition, examples = [], []
    for place, part in enumerate(part.strip() for part in gloss.split(";")):
        if place == 0:
            definition.append(part.strip('" '))
        elif part.startswith('"') or part.endswith('"'):
            examples.append(part.strip('" '))
        else:
            definition.append(part)
    return _tidy(";".join(definition)), tuple(text for text in examples if text and '"' not in text)


def _tidy(definition: str) -> str:
    """Join the definition's parts by `; `, without the words that introduce an example."""
    parts = []
    for part in definition.split(";"):
        part = part.strip(" ,:")
        if part.endswith(("e.g.", "as in")):
            part = _INTRODUCTION.sub("", part).strip(" ,:")
        if part:
            parts.append(part)
    return "; ".join(parts)
