"""From a number to its texts: which texts a cell lists, on which the models differ, and that a text is never markup."""

import bs4
import pandas as pd
import pytest
from test_explore import HOSTILE, tiny

from pdstudy.escape import escape_control
from pdstudy.report import html, tables, text_lists
from pdstudy.report.explore import Explorer

__all__ = ["tiny"]  # a fixture: four texts, three classes, a teacher and PD 2/64 of two seeds
MODEL = "2/64-PD-s0"


def rows_by_name(page: bs4.BeautifulSoup) -> dict[str, list[str]]:
    """Return the texts of each name by which rows are chosen."""
    names: dict[str, list[str]] = {}
    for row in page.select("table.texts tbody tr"):
        for name in row["data-in"].split():
            names.setdefault(name, []).append(row.td.get_text())
    return names


def test_a_cell_lists_its_texts_and_a_list_those_on_which_two_models_differ(tiny):
    page = bs4.BeautifulSoup(text_lists.texts(tiny, MODEL).data, "html.parser")
    counts = {cell["data-rows"]: int(cell.get_text()) for cell in page.select("td[data-rows]")}
    assert counts == {"cell-0-0": 1, "cell-1-1": 1, "cell-1-2": 1, "cell-2-2": 1}  # labels 0 1 1 2, answers 0 1 2 2
    names = rows_by_name(page)
    assert {name: len(texts) for name, texts in names.items() if name.startswith("cell")} == counts
    assert [text.strip(" \u2026") for text in names["wrong"]] == [tiny.texts[2][:400].strip()]
    assert len(names["differ-0"]) == 2, "the teacher answers 0 0 1 2"
    options = [option.get_text() for option in page.select("option")]
    assert options[:3] == ["all 4", f"mistakes of {MODEL}: 1", f"{MODEL} and teacher differ: 2"]
    assert page.select_one("td[data-rows=cell-1-2]")["data-says"] == "1 texts: <b>good</b>, answered other"


def test_the_mistakes_stand_first_and_a_table_is_short(tiny, monkeypatch):
    monkeypatch.setattr(text_lists, "MOST_TEXTS", 2)
    page = bs4.BeautifulSoup(text_lists.texts(tiny, MODEL).data, "html.parser")
    rows = page.select("table.texts tbody tr")
    assert ["wrong" in row["data-in"] for row in rows] == [True, False] and "2 of 4 texts are listed" in page.get_text()


def test_with_many_classes_the_most_frequent_mistakes_are_listed(tiny, monkeypatch):
    monkeypatch.setattr(text_lists, "MOST_CLASSES", 2)
    page = bs4.BeautifulSoup(text_lists.texts(tiny, MODEL).data, "html.parser")
    first = page.select_one("table.confusion tbody tr")
    assert [cell.get_text() for cell in first.select("th, td")] == ["<b>good</b>", "other", "1"]


def test_texts_and_class_names_are_escaped(tiny):
    tiny.texts = [*tiny.texts[:3], "</td></table></script><script>alert(3)</script>"]
    for text in (text_lists.texts(tiny, MODEL).data, tables.interactive(pd.DataFrame({"<i>": [HOSTILE, "</td>"]})).data):
        page = bs4.BeautifulSoup(text, "html.parser")
        assert [str(script) for script in page.select("script")] == [tables.START]
        assert not page.select("img, b, i") and "\u202e" not in text and "mathjax_ignore" in text


def test_another_student_is_compared_too_and_an_unknown_one_is_named(complete):
    assert text_lists.beside(complete, "2/64-PD-s1")[:3] == ["2/64-PD-s1", "teacher", "linear"]
    (other,) = text_lists.beside(complete, "2/64-PD-s1")[3:]
    assert not other.startswith("2/64-PD-")
    assert text_lists.beside(complete, "linear")[:2] == ["linear", "teacher"]
    with pytest.raises(ValueError, match="no 9/64-PD-s0 in this study; choose from 2/64-PD-s0, "):
        text_lists.texts(complete, "9/64-PD-s0")


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Explorer:
    import handmade

    return Explorer(handmade.complete_study(tmp_path_factory.mktemp("complete")))


def test_a_page_has_the_library_once_and_below_2_megabytes(tiny):
    body = tables.load().data + text_lists.texts(tiny, MODEL).data * 3
    page = html.page("title", body)
    soup = bs4.BeautifulSoup(page, "html.parser")
    assert [script.get_text() for script in soup.select("script")] == [html.SCRIPT, tables.library()]
    assert html.policy([html.SCRIPT, tables.library()]) in soup.select_one("meta[http-equiv]")["content"]
    assert len(page) < 1_000_000
    assert len(bs4.BeautifulSoup(html.page("title", "<table></table>"), "html.parser").select("script")) == 1, (
        "only where it is used"
    )


def test_the_library_is_one_classic_script():
    text = tables.library()
    assert "window.DataTable=" in text and "export{" not in text and "</script" not in text.lower()
    assert escape_control(text) == text, "writing a page changes nothing in it, so its digest is right"
