"""A line of text that a person edits."""

from __future__ import annotations

from rich.cells import cell_len

MAX_CHARACTERS = 1000


class LineEditor:
    """Text and a cursor in it."""

    def __init__(self, prompt: str, text: str) -> None:
        self.prompt = prompt
        self.text = text
        self.cursor = len(text)

    def insert(self, text: str) -> None:
        """Puts text in at the cursor; of several lines the first."""
        line = text.splitlines()[0] if text else ""
        line = "".join(c for c in line if c.isprintable())
        line = line[: MAX_CHARACTERS - len(self.text)]
        self.text = self.text[: self.cursor] + line + self.text[self.cursor :]
        self.cursor += len(line)

    def press(self, key: str) -> None:
        """A key that moves or deletes; others do nothing."""
        before, after = self.text[: self.cursor], self.text[self.cursor :]
        if key in ("backspace", "ctrl+h"):
            before = before[:-1]
        elif key == "delete":
            after = after[1:]
        elif key == "ctrl+u":
            before = ""
        elif key == "ctrl+k":
            after = ""
        elif key == "left":
            before, after = before[:-1], before[-1:] + after
        elif key == "right":
            before, after = before + after[:1], after[1:]
        elif key in ("home", "ctrl+a"):
            before, after = "", before + after
        elif key in ("end", "ctrl+e"):
            before, after = before + after, ""
        self.text, self.cursor = before + after, len(before)

    def view(self, width: int) -> tuple[str, str, str]:
        """Text before, under and after the cursor, as much as fits around the cursor."""
        before, under, after = self.text[: self.cursor], self.text[self.cursor :][:1], ""
        under = under or " "
        after = self.text[self.cursor + 1 :]
        room = max(1, width - cell_len(self.prompt) - cell_len(under))
        while cell_len(before) > room:
            before = before[1:]
        room -= cell_len(before)
        while cell_len(after) > room:
            after = after[:-1]
        return self.prompt + before, under, after
