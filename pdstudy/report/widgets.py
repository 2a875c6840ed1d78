"""Widgets to explore a study: choose recipes, sizes, transfer set and cost, and see where a student differs from its teacher."""

import base64
import html
import io

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from pdstudy.escape import escape_control
from pdstudy.report import explore


def study_widgets(study: str) -> widgets.VBox:
    """Return the widgets, with `study` selected."""
    return Panel(study).box


class Panel:
    """The widgets and their callbacks; a notebook displays `box`."""

    def __init__(self, study: str):
        wrapped = widgets.Layout(flex_flow="row wrap")
        self.study = widgets.Dropdown(options=sorted({*explore.studies(), study}), value=study, description="study")
        self.domain = widgets.Dropdown(description="D_T")
        self.cost = widgets.Dropdown(description="over")
        self.recipes, self.sizes = widgets.HBox(layout=wrapped), widgets.HBox(layout=wrapped)
        self.student = widgets.Dropdown(description="student")
        self.figure, self.table, self.summary, self.texts = (widgets.HTML() for _ in range(4))
        rows = [
            widgets.HBox([self.study, self.domain, self.cost], layout=wrapped), self.recipes, self.sizes, self.figure, self.table,
            self.student, self.summary, self.texts,
        ]  # fmt: skip
        self.box = widgets.VBox(rows)
        self._filling = False
        self.study.observe(lambda change: self.open(), "value")
        for choice in (self.domain, self.cost):
            choice.observe(lambda change: self.choose(), "value")
        self.student.observe(lambda change: self.show_texts(), "value")
        self.open()

    def open(self) -> None:
        """Read the selected study, and set the options of the other widgets."""
        self._filling = True
        self.explorer = explore.Explorer(self.study.value)
        self.domain.options, self.domain.value = self.explorer.domains, explore.OWN
        self.cost.options, self.cost.value = [(explore.COSTS[c].split(",")[0], c) for c in self.explorer.costs], "n_params"
        for box, names in ((self.recipes, self.explorer.recipes), (self.sizes, self.explorer.sizes)):
            box.children = [widgets.ToggleButton(value=True, description=n, layout={"width": "auto"}) for n in names]
            for button in box.children:
                button.observe(lambda change: self.choose(), "value")
        self._filling = False
        self.choose()

    def choose(self) -> None:
        """Show the selected students."""
        if self._filling:
            return
        recipes, sizes = ([b.description for b in box.children if b.value] for box in (self.recipes, self.sizes))
        table = self.explorer.accuracy(recipes, sizes, self.domain.value, self.cost.value)
        self._filling, before = True, self.student.value
        best_first = [(r.recipe, r.size) for r in table.sort_values("accuracy", ascending=False).itertuples()]
        self.student.options = [(" ".join(student), student) for student in best_first]
        self.student.value = before if before in best_first else next(iter(best_first), None)
        self._filling = False
        if table.empty:
            self.table.value = "No such student was distilled on this text: choose other recipes or sizes."
            self.figure.value = ""
        else:
            ax = explore.draw(table, self.cost.value, self.explorer.ceiling(), self.explorer.linear())
            self.figure.value = _picture(ax, explore.alt_text(table, self.cost.value))
            self.table.value = explore.students_html(table).data
        self.show_texts()

    def show_texts(self) -> None:
        """Show the texts on which the selected student and its teacher differ."""
        if self._filling:
            return
        self.summary.value = self.texts.value = ""
        if self.student.value is None:
            return
        try:
            differing = self.explorer.disagreements(*self.student.value, self.domain.value)
        except (ValueError, OSError) as error:  # no teacher, or no texts in the store
            self.summary.value = html.escape(escape_control(str(error)))
            return
        self.summary.value = explore.disagreement_summary(differing, len(self.explorer.texts))
        self.texts.value = explore.disagreements_html(differing).data


def _picture(ax: Axes, alt: str) -> str:
    """Return a figure as HTML with the image and its alternative text in it, and close the figure."""
    png = io.BytesIO()
    ax.figure.savefig(png, format="png", dpi=110)
    data = base64.b64encode(png.getvalue()).decode()
    plt.close(ax.figure)
    return f'<img alt="{html.escape(alt)}" style="max-width: 100%" src="data:image/png;base64,{data}">'
