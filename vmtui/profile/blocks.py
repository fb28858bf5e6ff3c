"""A TOML file as its tables: each with its header, its pairs, and the comments above it that are about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from vmtui.profile.positions import BLANK, SPACE, Positions


@dataclass(slots=True)
class Block:
    """`lead` is what stands above the header, `body` the header and all up to the end of its last pair."""

    path: tuple[str, ...]
    lead: str
    body: str


@dataclass(slots=True)
class Blocks:
    """The first one has no header; `tail` is what follows the last pair of the file. Joined they are the file."""

    found: list[Block]
    tail: str

    def text(self) -> str:
        return "".join(block.lead + block.body for block in self.found) + self.tail

    def below(self, path: tuple[str, ...]) -> list[Block]:
        """The table at `path` and those inside it."""
        return [block for block in self.found if block.path[: len(path)] == path]

    def at(self, path: tuple[str, ...]) -> Block | None:
        return next((block for block in self.found if block.path == path), None)

    def add(self, block: Block, *, after: tuple[str, ...]) -> None:
        """Put it behind the last table below `after`, at the end if there is none."""
        last = self.below(after) if after else []
        if last:
            self.found.insert(self.found.index(last[-1]) + 1, block)
        else:
            block.lead = self.tail + block.lead
            self.tail = ""
            self.found.append(block)

    def remove(self, gone: list[Block]) -> None:
        """Without these tables and the comments that stand right above them; other comments stay."""
        kept: list[Block] = []
        rest, inside = "", False
        for block in self.found:
            if any(block is one for one in gone):
                at_top = not any(before.lead or before.body for before in kept)
                rest += "" if inside else _apart(block.lead, at_top=at_top)
                inside = True
            else:
                block.lead, rest, inside = _joined(rest, block.lead), "", False
                kept.append(block)
        self.found = kept
        self.tail = _joined(rest, self.tail) if self.tail else rest


def _apart(lead: str, *, at_top: bool) -> str:
    """The comments above a table that a blank line, or the top of the file, keeps apart from it."""
    lines = lead.splitlines(keepends=True)
    end = len(lines)
    if not (at_top and not any(not line.strip() for line in lines)):
        while end and lines[end - 1].strip():
            end -= 1
    apart = "".join(lines[:end])
    return apart if apart.strip() else ""


def _joined(rest: str, lead: str) -> str:
    if not rest:
        return lead
    newline = "\r\n" if rest.endswith("\r\n") else "\n"
    between = "" if lead[:1] in ("\r", "\n") else newline
    return f"{rest.rstrip()}{newline}{between}{lead}"


def split(text: str) -> Blocks:
    """The tables of `text`, which tomllib has accepted."""
    return _Tables(text).blocks()


class _Tables(Positions):
    def _document(self) -> None:
        self._spans: list[tuple[tuple[str, ...], int, int]] = []
        text, at = self._text, 0
        path: tuple[str, ...] = ()
        start, end = 0, 0
        while True:
            if (here := self._skip(BLANK, at)) >= len(text):
                break
            if text[here] == "[":
                self._spans.append((path, start, end))
                found, at = self._key((), self._skip(SPACE, here + 1))
                path, start = tuple(str(part) for part in found), here
                at = end = self._line_end(at)
            else:
                if not path and not end:
                    start = here
                at = end = self._line_end(self._pair(path, here))
        self._spans.append((path, start, end))

    def _line_end(self, at: int) -> int:
        if self._text[at - 1 : at] == "\n":
            return at
        end = self._text.find("\n", at)
        return len(self._text) if end < 0 else end + 1

    def blocks(self) -> Blocks:
        found, before = [], 0
        for path, start, end in self._spans:
            found.append(Block(path, self._text[before:start], self._text[start:end]))
            before = end
        return Blocks(found, self._text[before:])
