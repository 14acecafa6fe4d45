"""Reading captions: the prompt without words of style, and the head noun it is about.

Rule-based on purpose: no model, no download, the same answer everywhere; it reads English. A
caption in another language keeps all of its words and its last word of the first phrase is the
head, which at worst lets a pair of the same content pass to the shape comparison.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from jobs.mining.lexicon import (
    COLOUR_WORDS,
    CONTAINERS,
    DETERMINERS,
    OPENERS,
    PHRASE_BREAKS,
    PICTURE_ADJECTIVES,
    PICTURE_NOUNS,
    STYLE_FILLERS,
    STYLE_WORDS,
)

_WORD = re.compile(r"[^\W_]+(?:[-'][^\W_]+)*")
_STYLE_OF = re.compile(
    r"\b(?:in|with|using|inspired by) (?:(?:the|a|an) )?(?:[\w'-]+ ){0,3}style(?: of [^,;.|]*)?",
    re.IGNORECASE,
)
_GROUND = re.compile(
    r"\b(?:on|against|over|with) (?:(?:the|a|an) )?((?:[\w-]+ ){0,3})(?:background|backdrop)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class CaptionContent:
    """What a caption says about content.

    Attributes:
        prompt: The caption without words of style; "" for an empty caption.
        head: Head noun of the first noun phrase, lower case and singular; "" if there is none.
        words: All content words of the prompt, lower case and singular, in order.
    """

    prompt: str
    head: str
    words: tuple[str, ...]


def read_caption(caption: str, extra_style_words: Collection[str] = ()) -> CaptionContent:
    """Strip style from ``caption`` and find its head noun."""
    style = STYLE_WORDS | {word.lower() for word in extra_style_words}
    text = " ".join(caption.replace("_", " ").split())
    text = _GROUND.sub(lambda m: "" if _only_style(m.group(1), style) else m.group(0), text)
    clauses = [c.strip() for c in re.split(r"[,;|]|\.(?=\s|$)", _STYLE_OF.sub("", text))]
    clauses = [clause for clause in clauses if clause]
    kept = [_strip_opener(clauses[0], style)] if clauses else []
    kept += [clause for clause in clauses[1:] if not _is_about_style(clause, style)]
    kept = list(filter(None, (_strip_style_words(clause, style) for clause in kept)))
    prompt = ", ".join(kept) or text
    words = tuple(_singular(t) for t in _tokens(prompt) if t not in PHRASE_BREAKS | DETERMINERS)
    return CaptionContent(prompt, _head(_tokens(kept[0] if kept else text)), words)


def _tokens(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _only_style(clause: str, style: Collection[str]) -> bool:
    """Whether every word is one of style, colour or filler."""
    return all(
        word in style or word in COLOUR_WORDS or word in STYLE_FILLERS or word in PICTURE_NOUNS
        for word in _tokens(clause)
    )


def _is_about_style(clause: str, style: Collection[str]) -> bool:
    """Whether a later clause is one of style, or names a hand: "oil painting by A. Hand"."""
    before, by, hand = f" {clause} ".partition(" by ")
    if by and hand.split() and hand.split()[0].lower() not in DETERMINERS:
        clause = before
    return _only_style(clause, style)


def _strip_opener(clause: str, style: Collection[str]) -> str:
    """Remove "there is" and "a watercolor painting of" from the front, as often as they stand."""
    before = ""
    while before != clause:
        before = clause
        lowered = clause.lower()
        for opener in OPENERS:
            if lowered.startswith(opener + " "):
                clause = clause[len(opener) :].strip()
                break
        clause = _strip_picture_noun(clause, style)
    return clause


def _strip_picture_noun(clause: str, style: Collection[str]) -> str:
    """Remove "a [style words] picture of" and "a watercolor of" from the front."""
    words = clause.split()
    lowered = [word.lower() for word in words]
    position = 0
    while position < len(words) and _is_picture_adjective(lowered[position], style):
        position += 1
    if position < len(words) and lowered[position] in PICTURE_NOUNS:
        position += 1
    names_picture = any(w in style or w in PICTURE_NOUNS for w in lowered[:position])
    follows = lowered[position] if position < len(words) - 1 else ""
    if names_picture and follows in ("of", "showing", "depicting", "featuring"):
        return " ".join(words[position + 1 :])
    return clause


def _is_picture_adjective(word: str, style: Collection[str]) -> bool:
    known = word in style or word in COLOUR_WORDS or word in DETERMINERS
    return known or word in PICTURE_ADJECTIVES


def _strip_style_words(clause: str, style: Collection[str]) -> str:
    """Drop style words and repair the article before them."""
    words = clause.split()
    kept: list[str] = []
    for position, word in enumerate(words):
        bare = word.lower().strip("\"'()")
        if bare in style:
            continue
        if kept and kept[-1].lower() in ("a", "an") and words[position - 1].lower() in style:
            kept[-1] = _article(kept[-1], bare)
        kept.append(word)
    while len(kept) < len(words) and kept and kept[-1].lower() in ("in", "with", "by", "and"):
        kept.pop()  # "a dog in watercolor"
    text = " ".join(kept).strip(" -")
    return "" if all(token in DETERMINERS for token in _tokens(text)) else text


def _article(article: str, following: str) -> str:
    right = "an" if following[:1] in "aeiou" else "a"
    return right.capitalize() if article[0].isupper() else right


def _head(tokens: list[str]) -> str:
    """The last word of the first noun phrase; containers ("a group of") are looked through."""
    phrase: list[str] = []
    for token in tokens:
        if token == "of" and phrase and phrase[-1] in CONTAINERS:
            phrase = []
        elif token in PHRASE_BREAKS or (phrase and len(token) > 4 and token.endswith("ing")):
            if phrase:
                break
        elif token not in DETERMINERS:
            phrase.append(token)
    return _singular(phrase[-1]) if phrase else ""


def _singular(word: str) -> str:
    """A rough singular, good enough as a key; short words and "-ss" stay."""
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1]
