"""Letters in order, with anything between them: whether, where and how well. Pure.

As in fzf's first algorithm: the earliest end of a match is taken, and from it back the latest beginning.
"""

from __future__ import annotations

LETTER = 16
AFTER_LETTER = 8  # directly after the one before
AT_START = 8  # at the beginning of a word
GAP = 1  # for each character that is skipped


def found(letters: str, text: str) -> bool:
    """Whether `letters` are in `text` in this order. Without a capital letter both cases count."""
    text = _cased(letters, text)
    at = 0
    for letter in letters:
        at = text.find(letter, at) + 1
        if not at:
            return False
    return True


def places(letters: str, text: str) -> list[int]:
    """Where they are, [] if they are not."""
    text = _cased(letters, text)
    at = -1
    for letter in letters:
        at = text.find(letter, at + 1)
        if at < 0:
            return []
    back: list[int] = []
    at += 1
    for letter in reversed(letters):
        at = text.rfind(letter, 0, at)
        back.append(at)
    return back[::-1]


def score(letters: str, text: str) -> int:
    """More for letters side by side and at beginnings of words; 0 for no match, and at least 1 for one."""
    made, before = 0, None
    for at in places(letters, text):
        made += LETTER + (AT_START if at == 0 or not text[at - 1].isalnum() else 0)
        if before is not None:
            made += AFTER_LETTER if at == before + 1 else -GAP * min(at - before - 1, LETTER)
        before = at
    return max(made, 1) if before is not None else 0


def _cased(letters: str, text: str) -> str:
    if letters != letters.lower():
        return text
    folded = text.lower()
    return folded if len(folded) == len(text) else text
