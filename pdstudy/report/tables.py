"""Tables of texts that are sorted, searched and paged without a network: DataTables, as itables ships it.

The HTML of a table is complete without scripts. A notebook displays `load()` once before its tables; a report has the library from
`html.page`, and no other script. Cells are escaped.
"""

import html
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from pdstudy.escape import escape_control

TEMPLATES = Path(__file__).parent / "templates"
STYLE = (TEMPLATES / "tables.css").read_text(encoding="utf-8")
EXPORTS = re.compile(r"export\s*\{([^}]*)\};")
# JupyterLab runs the script of an output before the output is in the document.
START = "<script>for (const ms of [0, 500]) setTimeout(() => window.pdstudyTables?.(), ms)</script>"
IGNORED = "tex2jax_ignore mathjax_ignore"  # a $ in a text is no formula
CHARACTERS = 400  # the most characters of a text


@cache
def library() -> str:
    """Return DataTables and our use of it as one classic script; itables has it as a module, whose export becomes a global name."""
    bundle = (resources.files("itables") / "html" / "dt_bundle.js").read_text(encoding="utf-8")
    names = {new: old for old, new in re.findall(r"(\w+) as (\w+)", EXPORTS.findall(bundle)[-1])}
    bundle = EXPORTS.sub(f"window.DataTable={names['default']};", bundle)
    bundle = escape_control(bundle)  # the same in its strings, and unchanged when a page is written, so that its digest stays right
    return f"(()=>{{{bundle}\n}})();\n{(TEMPLATES / 'tables.js').read_text(encoding='utf-8')}"


def load() -> HTML:
    """Return the library for a notebook: it makes the tables that are displayed after it interactive."""
    return HTML(f"<style>{STYLE}</style><script>{library()}</script>")


def interactive(table: pd.DataFrame, before: str = "", rows: Sequence[str] | None = None) -> HTML:
    """Return a table as HTML that is interactive where the library is loaded; long texts are cut.

    `before` is HTML in front of the table, in the same box. `rows` are for each row the names, separated by spaces, by which a cell of
    a confusion table or a list chooses it.
    """
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in table.columns)
    names = rows if rows is not None else [""] * len(table)
    body = "".join(
        f'<tr data-in="{html.escape(name)}">{"".join(f"<td>{_text(cell)}</td>" for cell in row)}</tr>'
        for name, row in zip(names, table.itertuples(index=False, name=None), strict=True)
    )
    texts = f'<table class="texts {IGNORED}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return HTML(f'<div class="texts-box">{before}{texts}</div>{START}')


def _text(cell: object) -> str:
    text = str(cell)
    return html.escape(escape_control(text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} \u2026"))
