"""Widgets that ask a study: which recipes and sizes, distilled on which text, over which cost, and whose texts are read."""

import base64
import html
import io

import ipywidgets as widgets
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from pdstudy.escape import visible
from pdstudy.report import explore


def of(study: str) -> widgets.VBox:
    """Return the widgets for a study; another can be chosen in them."""
    return Panel(study).box


class Panel:
    """The widgets, and what each of them changes; `box` is what a notebook shows."""

    def __init__(self, study: str):
        wrapped = widgets.Layout(flex_flow="row wrap")
        self.study = widgets.Dropdown(options=sorted({*explore.studies(), study}), value=study, description="study")
        self.domain = widgets.Dropdown(description="D_T")
        self.cost = widgets.Dropdown(description="over")
        self.recipes, self.sizes = widgets.HBox(layout=wrapped), widgets.HBox(layout=wrapped)
        self.student = widgets.Dropdown(description="student")
        self.figure, self.table, self.words, self.texts = (widgets.HTML() for _ in range(4))
        rows = [
            widgets.HBox([self.study, self.domain, self.cost], layout=wrapped), self.recipes, self.sizes, self.figure, self.table,
            self.student, self.words, self.texts,
        ]  # fmt: skip
        self.box = widgets.VBox(rows)
        self._filling = False
        self.study.observe(lambda change: self.open(), "value")
        for choice in (self.domain, self.cost):
            choice.observe(lambda change: self.choose(), "value")
        self.student.observe(lambda change: self.read(), "value")
        self.open()

    def open(self) -> None:
        """Read the study that is chosen, and offer what it has."""
        self._filling = True
        self.found = explore.Explorer(self.study.value)
        self.domain.options, self.domain.value = self.found.domains, explore.OWN
        self.cost.options, self.cost.value = [(explore.COSTS[c].split(",")[0], c) for c in self.found.costs], "n_params"
        for box, names in ((self.recipes, self.found.recipes), (self.sizes, self.found.sizes)):
            box.children = [widgets.ToggleButton(value=True, description=n, layout={"width": "auto"}) for n in names]
            for button in box.children:
                button.observe(lambda change: self.choose(), "value")
        self._filling = False
        self.choose()

    def choose(self) -> None:
        """Show the students that are chosen."""
        if self._filling:
            return
        recipes, sizes = ([b.description for b in box.children if b.value] for box in (self.recipes, self.sizes))
        table = self.found.accuracy(recipes, sizes, self.domain.value, self.cost.value)
        self._filling, before = True, self.student.value
        best_first = table.sort_values("accuracy", ascending=False)
        offered = [(r.recipe, r.size) for r in best_first.itertuples()]
        self.student.options = [(" ".join(student), student) for student in offered]
        self.student.value = before if before in offered else next(iter(offered), None)
        self._filling = False
        if table.empty:
            self.table.value = "No such student was distilled on this text: choose other recipes or sizes."
            self.figure.value = ""
        else:
            self.figure.value = _picture(
                explore.draw(table, self.cost.value, self.found.ceiling()), explore.alternative(table, self.cost.value)
            )
            self.table.value = explore.shown(table).data
        self.read()

    def read(self) -> None:
        """Show the texts on which the student that is chosen and its teacher differ."""
        if self._filling:
            return
        self.words.value = self.texts.value = ""
        if self.student.value is None:
            return
        try:
            differing = self.found.disagreements(*self.student.value, self.domain.value)
        except (ValueError, OSError) as error:  # no teacher; texts that were cleaned away
            self.words.value = html.escape(visible(str(error)))
            return
        self.words.value = explore.told(differing, len(self.found.texts))
        self.texts.value = explore.texts_shown(differing).data


def _picture(ax: Axes, alt: str) -> str:
    """Return a figure as HTML that asks nobody, with its text for those who cannot see it; the figure is closed."""
    with io.BytesIO() as held:
        ax.figure.savefig(held, format="png", dpi=110)
        data = base64.b64encode(held.getvalue()).decode()
    plt.close(ax.figure)
    return f'<img alt="{html.escape(alt)}" style="max-width: 100%" src="data:image/png;base64,{data}">'
