"""A page of the site, from its body: navigation, contents, tables that scroll and sort, and a policy that lets only our script run.

A page asks nobody for anything: its style, its one script and its figures are in it. Whatever was made from data is escaped
before it comes here; the policy is the belt to those braces.
"""

import base64
import hashlib
import re
from pathlib import Path

import jinja2
from bs4 import BeautifulSoup, Tag

Markup = jinja2.utils.markupsafe.Markup
TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = (TEMPLATES / "page.js").read_text(encoding="utf-8")
_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
POLICY = f"default-src 'none'; script-src 'sha256-{_HASH}'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def template(name: str) -> jinja2.Template:
    """Return one of our templates, which escapes what it is given."""
    return jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True).get_template(name)


def page(
    title: str, body: str, links: list[tuple[str, str]] = (), here: str = "", footer: str = "", rows: dict[str, str] | None = None
) -> str:
    """Return a whole page. `links` are the site's pages, name and file, and `here` is the file of this one.

    A table's row whose name is in `rows` gets a link to where that says: from a claim to its figure.
    """
    dressed = BeautifulSoup(body, "html.parser")
    for style in dressed.find_all("style"):  # pandas' own, under each table
        style.decompose()
    for number, table in enumerate(dressed.find_all("table"), 1):
        _dress_table(dressed, table, number, rows or {})
    for box in dressed.find_all("pre"):
        box["tabindex"] = "0"  # what scrolls sideways must do so by keyboard too
    for number, image in enumerate(dressed.select("figure > .wide"), 1):
        image.attrs |= {"tabindex": "0", "role": "group", "aria-label": f"figure {number}"}
    sections, contents = _sections(dressed), list(dressed.contents)
    first = next((i for i, node in enumerate(contents) if getattr(node, "name", "") == "h2"), len(contents))
    return template("page.html.j2").render(
        title=title, links=links, here=here, footer=footer, sections=sections, turns=_turns(links, here), policy=POLICY,
        opening="".join(map(str, contents[:first])), rest="".join(map(str, contents[first:])),
        style=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")), script=Markup(SCRIPT),
    )  # fmt: skip


def _sections(body: BeautifulSoup) -> list[tuple[str, str]]:
    """Return the sections as (anchor, name), after giving each heading its anchor."""
    found = {}
    for heading in body.find_all("h2"):
        name = " ".join(heading.get_text().split())
        anchor = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "section"
        while anchor in found:
            anchor += "-again"
        heading["id"], found[anchor] = anchor, name
    return list(found.items())


def _dress_table(body: BeautifulSoup, table: Tag, number: int, rows: dict[str, str]) -> None:
    """Put a table in a box that scrolls, say which cells are headers of what, and link the rows that have somewhere to go."""
    table.wrap(body.new_tag("div", attrs={"class": "wide", "tabindex": "0", "role": "group", "aria-label": f"table {number}"}))
    for i, cell in enumerate(table.select("thead th")):
        cell["scope"] = "col"
        if not cell.get_text(strip=True):
            if i:
                cell.name = "td"  # a header of nothing
                del cell["scope"]
            else:
                cell.append(body.new_tag("span", attrs={"class": "unseen"}, string="row"))
    for cell in table.select("tbody th"):
        cell["scope"] = "row"
        if (where := rows.get(cell.get_text())) and not cell.find("a"):
            cell.string.wrap(body.new_tag("a", attrs={"href": where}))


def _turns(links: list[tuple[str, str]], here: str) -> list[tuple[str, tuple[str, str]]]:
    """Return the pages before and after this one, each with the word for it."""
    at = next((i for i, (_, file) in enumerate(links) if file == here), None)
    if at is None:
        return []
    return [(word, links[i]) for word, i in (("Previous", at - 1), ("Next", at + 1)) if 0 <= i < len(links)]
