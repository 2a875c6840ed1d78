"""Make text safe for a terminal, Markdown and HTML: control characters, marks of writing direction, markup."""

import html
import re

# Control characters except tab and line ends (ESC starts a terminal command), marks that change the writing direction, and lone
# surrogates, which no terminal can encode.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_control(text: str) -> str:
    """Return `text` with every control character written as its code point, such as \\u202e."""
    return CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escape_markdown(text: str) -> str:
    """Return `text` on one line, with every character that means something in Markdown or HTML escaped."""
    return escape_control(html.escape(" ".join(text.split())).translate({ord(c): f"\\{c}" for c in r"\|*_`[]#~!"}))


class Prose(str):
    """Generated sentences, a paragraph that is escaped when shown as HTML."""

    kind = "answer"  # its class in HTML

    def _repr_html_(self) -> str:
        return f'<p class="{self.kind}">{html.escape(self)}</p>'

    __html__ = _repr_html_  # for Jinja templates


class Note(Prose):
    """Generated sentences that are not the answer."""

    kind = "note"
