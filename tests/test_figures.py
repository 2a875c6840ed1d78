"""Figures: drawn from a complete study, saved with their data, titled by their findings, empty if nothing was measured."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from handmade import both, complete_study, write

from pdstudy.analysis import verdicts
from pdstudy.report import charts, figures, style
from pdstudy.report.charts import by_width
from pdstudy.report.style import PAPER_GREY
from pdstudy.storage import paths, results


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = complete_study(tmp_path_factory.mktemp("whole"))
    return folder, verdicts.judge(folder)


@pytest.mark.parametrize("name", figures.NAMES)
def test_a_figure_has_data_and_alternative_text(measured, name):
    figure = figures.draw(*measured[:1], name, measured[1])
    assert len(figure.data) and len(figure.alt) > 30
    assert figure.axes.has_data()
    plt.close(figure.axes.figure)


@pytest.mark.parametrize("name", figures.NAMES)
def test_a_study_with_few_results_gives_empty_figures_and_no_error(tmp_path, name):
    folder = write(tmp_path, both("PD", 0.8) | both("PF", 0.7), transfer={"texts": 9}, splits={"train": 9})
    (tmp_path / results.TEXTS).write_text('{"train": {"kept": 9}}')
    figure = figures.draw(folder, name, verdicts.judge(folder))
    measurable = {"which_student", "strategies", "starts", "gains_pretraining_value", "depth_width"}
    assert (len(figure.data) > 0) == (name in measurable), "what was not measured is not drawn"
    plt.close(figure.axes.figure)


def test_the_title_is_the_finding(measured):
    figure = figures.draw(*measured[:1], "transfer_size", measured[1])
    assert "A small pre-trained student needs less transfer text than a large random one: yes" in figure.axes.figure.get_suptitle()
    plt.close(figure.axes.figure)


def test_a_figure_is_saved_as_png_svg_and_csv(measured, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "OUTPUTS", tmp_path)
    figure = figures.draw(*measured[:1], "domains", measured[1])
    figures.save(figure, "mine", "domains")
    folder = tmp_path / "mine" / "figures"
    assert {p.name for p in folder.iterdir()} == {"domains.png", "domains.svg", "domains.csv"}
    table = pd.read_csv(folder / "domains.csv")
    assert set(table.domain) == {"a", "b", "c"} and set(table.recipe) == {"PD", "Distillation", "PD-F"} and table.S.notna().all()
    plt.close(figure.axes.figure)


def test_the_papers_numbers_are_grey_beside_ours(measured):
    figure = figures.draw(*measured[:1], "compound", measured[1])
    ours, theirs = figure.axes.figure.axes
    assert "Fig 10" in theirs.get_title(loc="left")
    assert {line.get_color() for line in theirs.get_lines()} == {PAPER_GREY}
    assert sorted(len(line.get_xdata()) for line in theirs.get_lines()) == [5, 5, 5]
    plt.close(ours.figure)


def test_names_of_lines_with_close_ends_do_not_overlap():
    ax = style.new_axes()
    ax.set_ylim(0, 100)
    style.label_ends(ax, [(99, "a", "black", 2.0), (99, "b", "black", 2.0), (99, "c", "black", 1.0), (20, "d", "black", 2.0)])
    names = {text.get_text(): text for text in ax.texts}
    assert [names[n].xy for n in "abcd"] == [(2, 93.5), (2, 99), (2, 104.5), (2, 20)]
    ax.figure.canvas.draw()
    assert all(text.get_window_extent().width > 0 and not text.get_annotation_clip() for text in names.values()), (
        "above the axis too"
    )
    (lead,) = (line for line in ax.lines if line.get_linestyle() == ":")
    assert lead.get_xydata().tolist() == [[1, 99], [2, 104.5]], "c ends before the others and is led to its name"
    plt.close(ax.figure)


def test_places_are_moved_as_little_as_possible():
    assert style.spread([1, 5, 9], 2).tolist() == [1, 5, 9]
    assert style.spread([4, 4, 9], 2).tolist() == [3, 5, 9]
    assert style.spread([], 2).tolist() == []


def test_of_several_batch_sizes_the_best_of_each_rate_is_drawn_and_the_chosen_is_filled():
    rows = [(0.001, 8, 0.60), (0.003, 8, 0.55), (0.001, 64, 0.70), (0.003, 64, 0.80)]
    table = pd.DataFrame(
        [
            {"recipe": "PD", "size": "2/64", "corpus": None, "rate": r, "batch": b, "chosen": d == 0.80, "dev_accuracy": d}
            for r, b, d in rows
        ]
    )
    line, filled = charts.rate_searches(table).lines[:2]
    assert list(line.get_ydata()) == pytest.approx([70, 80]) and list(filled.get_ydata()) == pytest.approx([80])


def test_every_width_is_drawn():
    widths = [64 * k for k in range(1, 8)]
    ax = style.new_axes()
    by_width(pd.DataFrame({"size": [f"2/{w}" for w in widths], "x": widths, "value": 0.5}), ax, "viridis")
    assert len(ax.get_lines()) == len(widths)
    plt.close(ax.figure)


def test_gains_stand_in_the_order_of_the_sizes_parameters():
    rows = [("PD over Distillation", "2/128"), ("PF over Basic", "4/64"), ("PF over Basic", "2/128")]
    table = pd.DataFrame(rows, columns=["pair", "size"]).assign(estimate=1.0, low=0.0, high=2.0)
    assert [label.get_text() for label in charts.gains_by_size(table).get_xticklabels()] == ["4/64", "2/128"]


def test_the_front_is_named_and_every_model_is_in_the_chart_of_which_student(measured):
    figure = figures.draw(*measured[:1], "which_student", measured[1])
    names = {text.get_text() for text in figure.axes.texts}
    front = figure.data[figure.data.front == True]  # noqa: E712  (the teacher has none)
    assert names >= {r.recipe if r.size == "linear" else f"{r.size} {r.recipe}" for r in front.itertuples()}
    assert any(name.startswith("teacher\n") for name in names) and "Linear" in set(figure.data.recipe)
    drawn = {line.get_gid() for line in figure.axes.get_lines()}
    assert drawn >= {
        f"{r.size} {r.recipe}" for r in figure.data.itertuples() if r.recipe not in ("teacher", "Linear", "Linear, taught")
    }
    title = figure.axes.figure.get_suptitle()
    assert title.startswith("On the Pareto front: ") and " linear " not in title  # a linear model has no size to name
    plt.close(figure.axes.figure)


def test_where_curves_cross_is_in_the_title_and_marked(measured):
    figure = figures.draw(*measured[:1], "labels", measured[1])
    assert set(figure.data.recipe) == {"PF", "Linear"} and set(figure.data.texts) == {250, 500, 1000}
    assert "PF 2/64 is above the linear model from the fewest labels measured on (250)" in figure.axes.figure.get_suptitle()
    assert any(text.get_text().startswith("PD ") and "all labels" in text.get_text() for text in figure.axes.texts)
    plt.close(figure.axes.figure)


def test_a_figure_of_what_was_not_measured_is_a_sentence(tmp_path, capsys):
    folder = write(tmp_path, both("PD", 0.8) | both("PF", 0.7), transfer={"texts": 9}, splits={"train": 9})
    figures.show(folder, "labels", verdicts.judge(folder))
    assert capsys.readouterr().out == "This study did not measure what the figure shows.\n"
