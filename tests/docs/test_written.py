"""What `tools/readme.py` writes into README and docs: it is current, and made from the study's tables."""

import shutil
from pathlib import Path

import benchmark_tables
import pandas as pd
import pytest
import readme

from pdstudy.analysis import claims
from pdstudy.report import figures
from pdstudy.storage import paths

pytestmark = pytest.mark.docs
ROOT = paths.ROOT
SHOWN = str(readme.PUBLISHED / readme.published_study())


def judged(v1="supported", v2="supported", r1a="undecided", r5a="undecided", **changed) -> pd.DataFrame:
    """Return verdicts made by hand: gains of 5, 6, -0.5 and 1 points, each a point either way, the paper's 4."""
    rows = [("V1", v1, 5.0), ("V2", v2, 6.0), ("R1a", r1a, -0.5), ("R5a", r5a, 1.0)]
    return pd.DataFrame(
        [
            {"id": id, "claim": f"claim {id}", "verdict": verdict, "estimate": x, "low": x - 1, "high": x + 1, "paper": 4.0}
            | changed
            for id, verdict, x in rows
        ]
    )


def scores() -> pd.DataFrame:
    """Return metrics made by hand: PF of two sizes and two seeds, a teacher, and rows that do not count."""
    rows = [
        ("PF", "4/256", 2, 0.80, "test"),
        ("PF", "4/256", 2, 0.82, "test"),
        ("PF", "2/128", 1, 0.70, "test"),
        ("PF", "2/128", 1, 0.72, "test"),
    ]
    rows += [("teacher", "6/512", 3, 0.9, "test"), ("PF", "2/128", 1, 0.1, "dev"), ("PD", "2/64", 0, 0.2, "test")]
    table = pd.DataFrame(rows, columns=["recipe", "size", "n_params", "value", "split"])
    return table.assign(metric="accuracy")


def test_the_recipes_stand_in_order_at_the_smallest_size_that_all_have():
    rows = [
        ("Distillation", "2/128", 2, 0.75, "test"),
        ("Distillation", "6/128", 2, 0.9, "test"),
        ("Linear", "linear", 0, 0.7, "test"),
        ("Linear, taught", "linear", 0, 0.76, "test"),
    ]
    more = pd.DataFrame(rows, columns=["recipe", "size", "n_params", "value", "split"]).assign(metric="accuracy")
    assert readme.in_order(pd.concat([scores(), more])) == (
        "At 2/128: Distillation 75.0 %, PF 71.0 %; the linear model 70.0 %, taught by the same teacher 76.0 %."
    )


def test_what_a_small_teacher_changes_is_told_in_one_sentence():
    assert readme.smaller_teacher(judged(r1a="supported"), scores(), 16_000) == (
        "With 16,000 transfer texts and a small teacher (90.0 %) PD scores -0.5 points (95 % -1.5 to +0.5) against PF (supported)."
    )


def test_readme_is_read_in_a_few_minutes():
    assert len(readme.README.read_text().split()) <= 900


def test_readme_shows_what_the_study_found():
    text = readme.README.read_text()
    assert readme.answers.answer(readme.EIGHT, readme.verdicts.load(readme.EIGHT)) in text and readme.main_claims(SHOWN) in text


def test_results_shows_every_claim_and_score_of_the_study():
    assert readme.tables(SHOWN) in readme.RESULTS.read_text(), "run: python tools/readme.py"


def test_the_paper_to_code_table_is_the_studys():
    assert readme.paper_to_code(SHOWN) in readme.TABLE.read_text(), "run: python tools/readme.py"


def test_what_was_measured_is_what_the_records_say():
    for page, part, text in readme.records():
        assert text in page.read_text(), f"{page.name}, {part}: run python tools/readme.py"


def test_a_benchmark_without_a_record_is_shown_as_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_tables, "RESULTS", tmp_path)
    alone = (
        benchmark_tables.steps,
        benchmark_tables.ways,
        benchmark_tables.reading,
        benchmark_tables.corpus,
        benchmark_tables.everyday,
        benchmark_tables.gpu,
        benchmark_tables.own_tasks,
    )
    for part in alone:
        assert "Not measured yet" in part()
    assert benchmark_tables.peers().count("Not measured yet") == len(benchmark_tables.PEERS)


PICTURES = [(SHOWN, name, name, readme.RESULTS) for name in readme.KEY_FIGURES]


@pytest.mark.parametrize(
    ("study", "figure", "name", "page"),
    [*PICTURES, *((study, figure, Path(study).name, page) for study, (page, _, figure) in readme.beside().items())],
)
def test_a_key_figure_is_small_and_shows_the_study(study, figure, name, page):
    drawn, record = readme.draw(study, figure)
    picture = readme.PICTURES / f"{name}.png"
    assert readme.recorded(picture) == record, "run: python tools/readme.py"
    assert picture.stat().st_size < readme.MOST_BYTES
    assert f"![{drawn.alt}](figures/{name}.png)" in page.read_text()


def test_every_figure_and_claim_has_its_part_of_the_paper():
    of_questions = {f"gains_{question}" for question in claims.QUESTIONS}
    assert {name for part in readme.PRINTED for name in part.figures} | of_questions == set(figures.NAMES)
    assert {i for part in readme.PRINTED for i in part.claims} == {claim.id for claim in claims.CLAIMS}
    for part in (*readme.ALGORITHM, *readme.PRINTED):
        assert not part.notebook or (paths.NOTEBOOKS / f"{part.notebook}.ipynb").is_file()


def test_a_function_that_is_gone_is_missed(monkeypatch):
    from pdstudy.models import losses

    monkeypatch.delattr(losses, "soft_label_loss")
    with pytest.raises(AttributeError, match="soft_label_loss"):
        readme.paper_to_code(SHOWN)


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The pages that the command writes, and the study's evidence under another name."""
    for name in ("README", "RESULTS", "TABLE", "OWN", "SPEED", "PAPER_SCALE"):
        copy = tmp_path / getattr(readme, name).name
        shutil.copy(getattr(readme, name), copy)
        monkeypatch.setattr(readme, name, copy)
    monkeypatch.setattr(readme, "KEY_FIGURES", ("domains",))
    shutil.copytree(readme.PICTURES, tmp_path / "figures")
    monkeypatch.setattr(readme, "PICTURES", tmp_path / "figures")
    shutil.copytree(SHOWN, tmp_path / "published" / "another")
    monkeypatch.setattr(readme, "PUBLISHED", tmp_path / "published")
    return readme.README, readme.RESULTS, readme.TABLE


def test_the_command_writes_another_study_everywhere_and_is_done_once(copies, capsys):
    assert readme.main(["another"]) == 0
    assert {"README.md changed", "results.md changed", "paper_to_code.md changed"} <= set(capsys.readouterr().out.splitlines())
    for page in copies:
        assert "of another: made by" in page.read_text() and f"of {Path(SHOWN).name}: made by" not in page.read_text()
    assert readme.published_study() == "another" and readme.recorded(readme.PICTURES / "domains.png")["study"] == "another"
    assert readme.main([]) == 0 and "all is up to date" in capsys.readouterr().out


def test_a_study_that_is_not_there_changes_no_page(copies, capsys):
    before = [page.read_text() for page in copies]
    assert readme.main(["nothing"]) == 2 and "python -m pdstudy run" in capsys.readouterr().err
    assert [page.read_text() for page in copies] == before


def test_a_page_without_its_markers_is_named(copies, capsys):
    readme.TABLE.write_text("no marker")
    assert readme.main(["another"]) == 1 and "paper_to_code.md: there is no place for its parts" in capsys.readouterr().err
