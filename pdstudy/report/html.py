"""Make a page of a report from its body: navigation, contents, tables that scroll and sort, and a content security policy.

A page is self-contained: style, script and figures are in it. Callers escape what comes from data. As a second protection, the policy
forbids other scripts and all requests.
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
from bs4 import BeautifulSoup, Tag

from pdstudy.report import tables

Markup = jinja2.utils.markupsafe.Markup
TEMPLATES = Path(__file__).parent / "templates"
SCRIPT = (TEMPLATES / "page.js").read_text(encoding="utf-8")


def policy(scripts: Sequence[str], connect: str = "") -> str:
    """Return a page's content security policy: these scripts only, and requests only to `connect`, by default to nowhere."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    rules = (
        f"default-src 'none'; script-src {allowed}; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    return f"{rules}; connect-src {connect}" if connect else rules


def template(name: str, folder: Path = TEMPLATES) -> jinja2.Template:
    """Return a template, with escaping on."""
    return jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True).get_template(name)


def page(
    title: str, body: str, links: list[tuple[str, str]] = (), here: str = "", footer: str = "", rows: dict[str, str] | None = None,
    unfolded: int | None = None, scripts: Sequence[str] = (), connect: str = "",
) -> str:  # fmt: skip
    """Return a page. `links` are (name, file) of all pages, `here` is the file of this one.

    `rows` are links by the name of a row, such as from a claim to its figure. Sections after the first `unfolded` are folded.
    `scripts` are the page's own, and `connect` is where they may send requests, "'self'" for the server of the page.
    """
    soup = BeautifulSoup(body, "html.parser")
    for element in soup.find_all(["style", "script"]):  # pandas adds a style to each table; tables.load is for notebooks
        element.decompose()
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    if soup.select_one("table.texts"):
        scripts, style = [*scripts, tables.library()], style + tables.STYLE
    for number, table in enumerate(soup.find_all("table"), 1):
        _prepare_table(soup, table, number, rows or {})
    for box in soup.find_all("pre"):
        box["tabindex"] = "0"  # so that it can be scrolled with the keyboard
    for number, image in enumerate(soup.select("figure > .wide"), 1):
        image.attrs |= {"tabindex": "0", "role": "group", "aria-label": f"figure {number}"}
    sections = _sections(soup)
    _fold(soup, soup.find_all("h2")[unfolded:] if unfolded is not None else ())
    contents = list(soup.contents)
    first = next((i for i, node in enumerate(contents) if getattr(node, "name", "") == "h2"), len(contents))
    return template("page.html.j2").render(
        title=title, links=links, here=here, footer=footer, sections=sections, turns=_turns(links, here), policy=policy((SCRIPT, *scripts), connect),
        opening="".join(map(str, contents[:first])), rest="".join(map(str, contents[first:])),
        style=Markup(style), scripts=[Markup(script) for script in (SCRIPT, *scripts)],
    )  # fmt: skip


def _sections(body: BeautifulSoup) -> list[tuple[str, str]]:
    """Add an anchor to each heading, and return the sections as (anchor, name)."""
    sections = {}
    for heading in body.find_all("h2"):
        name = " ".join(heading.get_text().split())
        anchor = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "section"
        while anchor in sections:
            anchor += "-again"
        heading["id"], sections[anchor] = anchor, name
    return list(sections.items())


def _fold(body: BeautifulSoup, headings: Iterable[Tag]) -> None:
    """Fold sections, each from its heading to the next, so that only the headings are seen first."""
    for heading in headings:
        below = list(itertools.takewhile(lambda node: node.name != "h2", heading.next_siblings))
        details = heading.wrap(body.new_tag("summary")).wrap(body.new_tag("details", attrs={"class": "section"}))
        for node in below:
            details.append(node.extract())


def _prepare_table(body: BeautifulSoup, table: Tag, number: int, rows: dict[str, str]) -> None:
    """Put a table in a box that scrolls, mark the scope of its headers, and add the links of its rows."""
    table.wrap(body.new_tag("div", attrs={"class": "wide", "tabindex": "0", "role": "group", "aria-label": f"table {number}"}))
    for i, cell in enumerate(table.select("thead th")):
        cell["scope"] = "col"
        if not cell.get_text(strip=True):
            if i:
                cell.name = "td"  # an empty header
                del cell["scope"]
            else:
                cell.append(body.new_tag("span", attrs={"class": "unseen"}, string="row"))
    for cell in table.select("tbody th"):
        cell["scope"] = "row"
        if (href := rows.get(cell.get_text())) and not cell.find("a"):
            cell.string.wrap(body.new_tag("a", attrs={"href": href}))


def _turns(links: list[tuple[str, str]], here: str) -> list[tuple[str, tuple[str, str]]]:
    """Return ("Previous", page) and ("Next", page), as far as there are such pages."""
    at = next((i for i, (_, file) in enumerate(links) if file == here), None)
    if at is None:
        return []
    return [(word, links[i]) for word, i in (("Previous", at - 1), ("Next", at + 1)) if 0 <= i < len(links)]
