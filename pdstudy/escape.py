"""Characters that act instead of being read, made visible: terminal escapes, marks that turn the direction of writing, markup."""

import html
import re

# Control characters apart from tab and line ends (ESC begins a terminal's command), direction marks and isolates, halves of characters, which no terminal takes.
ACTING = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return `text` with every acting character as its number, such as \\u202e."""
    return ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def in_markdown(text: str) -> str:
    """Return text, on one line, that neither Markdown nor HTML reads as anything else."""
    return visible(html.escape(" ".join(text.split())).translate({ord(c): f"\\{c}" for c in r"\|*_`[]#~!"}))


class Prose(str):
    """Generated words that a notebook and a page show escaped: a line as a paragraph, of several the others as a list under it."""

    def _repr_html_(self) -> str:
        first, *others = html.escape(self).split("\n")
        if not others:
            return f'<p class="answer">{first}</p>'
        return f'<div class="answer"><p>{first}</p><ul>{"".join(f"<li>{line}</li>" for line in others)}</ul></div>'

    __html__ = _repr_html_  # what a template shows
