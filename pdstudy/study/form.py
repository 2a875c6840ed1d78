"""A study's settings as a form in JupyterLab: every value with its documentation, checked as it is typed, and the line to paste."""

import html
import inspect
import json
import re
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel

from pdstudy.escape import escape_control
from pdstudy.storage import paths
from pdstudy.study import sections
from pdstudy.study.yaml_file import ParamsError

if TYPE_CHECKING:
    from pdstudy.study.settings import Study

STUDY = "study"  # the title of the settings that are in no section


def documentation(model: type[BaseModel]) -> dict[str, str]:
    """Return the comment of each field of a model of settings: beside it, or in the lines above it."""
    notes, above = {}, []
    for line in inspect.getsource(model).splitlines():
        if line.startswith("    # "):
            above.append(line.removeprefix("    # "))
        elif field := re.match(r"    (\w+): ", line):
            beside = line.partition("  # ")[2]
            notes[field[1]], above = beside or " ".join(above), []
        else:
            above = []
    return notes


class Form:
    """The widgets of a study's settings; a notebook displays `box`.

    `fields` are the widgets by "key" or "section.key", `settings` what differs from the params file, `line` the line to paste, and
    `message` what is wrong with a value and what to write, empty if all are right.
    """

    def __init__(self, study: type["Study"], name: str):
        import ipywidgets as widgets

        self._study, self._name, self._widgets = study, name, widgets
        self._in_file = study.read(name).model_dump(mode="json")
        self.settings: dict[str, Any] = {}
        self.fields: dict[str, Any] = {}
        self._line, self._message = widgets.Textarea(description="to paste", layout={"width": "100%"}), widgets.HTML()
        groups = self._groups()
        self._begin = {name: field.value for name, field in self.fields.items()}
        titles = list(groups)
        accordion = widgets.Accordion([widgets.VBox(rows) for rows in groups.values()], titles=titles, selected_index=0)
        # The settings scroll, so that the message and the line below them stay in sight.
        scrolled = widgets.VBox([accordion], layout={"max_height": "26rem", "overflow": "auto"})
        self.box = widgets.VBox([scrolled, self._message, self._line])
        self._check()

    @property
    def line(self) -> str:
        """Return the line that sets these values in a notebook."""
        return self._line.value

    @property
    def message(self) -> str:
        """Return what is wrong, or an empty text."""
        return self._problem

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.box)

    def _groups(self) -> dict[str, list]:
        """Return the widgets of every section by its title."""
        groups: dict[str, list] = {STUDY: []}
        for key, field in self._study.model_fields.items():
            section = field.annotation
            if not (isinstance(section, type) and issubclass(section, sections.Settings)):
                groups[STUDY] += self._row(key, field.annotation, self._in_file[key], documentation(self._study).get(key, ""))
                continue
            notes = documentation(section)
            for base in section.__mro__[1:]:
                if issubclass(base, sections.Settings):
                    notes = documentation(base) | notes
            head = self._widgets.HTML(f"<p>{html.escape(inspect.getdoc(section) or '')}</p>")
            groups[key] = [head]
            for name, inner in section.model_fields.items():
                groups[key] += self._row(f"{key}.{name}", inner.annotation, self._in_file[key][name], notes.get(name, ""))
        return groups

    def _row(self, name: str, annotation: Any, value: Any, note: str) -> list:
        """Return the widgets of one value: a choice for true and false and for a list of words, else the value as YAML."""
        choices = [False, True] if annotation is bool else list(get_args(annotation)) if get_origin(annotation) is Literal else None
        label, style, layout = name.rpartition(".")[2], {"description_width": "9rem"}, {"width": "98%"}
        if choices and value in choices:
            field = self._widgets.Dropdown(options=[(_yaml(c), c) for c in choices], value=value, description=label, style=style)
        else:
            field = self._widgets.Text(value=_yaml(value), description=label, style=style, layout=layout, continuous_update=False)
        field.observe(lambda change: self._check(), "value")
        self.fields[name] = field
        return [field, self._widgets.HTML(f"<small>{html.escape(note)}</small>")] if note else [field]

    def _check(self) -> None:
        """Read the values, check them as a study, and show the line, or what is wrong."""
        self._problem, settings = "", {}
        try:
            for name, field in self.fields.items():
                section, _, key = name.rpartition(".")
                if field.value != self._begin[name]:
                    (settings.setdefault(section, {}) if section else settings)[key] = self._value(name)
            self._study.read(self._name, settings)
        except ParamsError as error:
            self._problem = paths.scrub(str(error))
        self.settings = self.settings if self._problem else settings
        self._line.value = "" if self._problem else f"settings = {settings!r}"
        message = html.escape(escape_control(self._problem or "All values are right."))
        self._message.value = f'<p role="status"><b>{message}</b></p>' if self._problem else f'<p role="status">{message}</p>'

    def _value(self, name: str) -> Any:
        """Return the value of a field. Raises ParamsError for text that is neither JSON nor YAML."""
        text = self.fields[name].value
        if not isinstance(self.fields[name], self._widgets.Text):
            return text
        try:
            return json.loads(text)  # reads 1e-3 as a number, which YAML does not
        except ValueError:
            pass
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            raise ParamsError(f"{name}: {text[:60]!r} is not YAML; write a value such as {self._begin[name]}") from None


def _yaml(value: Any) -> str:
    """Return a value on one line, as YAML reads it; integers without a decimal point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
