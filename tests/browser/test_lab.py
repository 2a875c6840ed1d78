"""JupyterLab as people use it: started by `make lab`, in this machine's Chromium, every notebook by Run All, stopped once.

Screenshots lie in $PDSTUDY_SCREENSHOTS, else in pytest's folder of this run.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
import pytest

from pdstudy.storage import paths

pytestmark = pytest.mark.browser

NOTEBOOKS = sorted(p.stem for p in paths.NOTEBOOKS.glob("*.ipynb"))
TWO_MB = 2_000_000
MINUTE = 60
IDLE = "Python 3 (ipykernel) | Idle"  # in the status bar
STEPS = re.compile(r"\d+ of \d+ steps|nothing to compute")
STUDY = "01_pretraining_value"  # the notebook that computes the rest of the smoke study, for all that come after it
REST = ("distill", "evaluate")  # the stages of that rest
EXPLORER = "06_explore"


@dataclass
class Lab:
    """A running JupyterLab: its address with the token, the folder of its notebooks, its process."""

    address: str
    folder: Path
    process: psutil.Process

    def workers(self) -> list[psutil.Process]:
        """Return the processes that the kernels have started for steps of a study."""
        workers = []
        for child in self.process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "spawn_main" in " ".join(child.cmdline()):
                    workers.append(child)
        return workers


@pytest.fixture(scope="module")
def lab(smoke, tmp_path_factory):
    """JupyterLab by `make lab` beside copies of the notebooks, with outputs and settings of its own; no student is distilled yet."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(paths.OUTPUTS / "store", folder / "outputs" / "store", ignore=shutil.ignore_patterns(*REST))
    shutil.copytree(paths.NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_SETTINGS_DIR")
    own = {name: str(folder / name.lower()) for name in names}
    news = Path(own["JUPYTERLAB_SETTINGS_DIR"]) / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')  # else it asks, in front of the notebook
    environment = os.environ | own | {"PDSTUDY_OUTPUTS": str(folder / "outputs"), "OMP_NUM_THREADS": "1"}
    more = f"--no-browser --port={port} --ServerApp.port_retries=0" + (" --allow-root" if os.geteuid() == 0 else "")
    # .venv/ready is taken for made: these tests run in the environment that it would make
    command = ["make", "-C", folder, "-f", paths.ROOT / "Makefile", "-o", ".venv/ready", f"BIN={Path(sys.prefix) / 'bin'}", "lab"]
    with (folder / "log").open("w") as log:
        made = subprocess.Popen([*command, f"LAB={more}"], env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address = None
        deadline = time.monotonic() + 2 * MINUTE
        while address is None and time.monotonic() < deadline and made.poll() is None:
            time.sleep(0.5)
            address = re.search(rf"http://127\.0\.0\.1:{port}/lab\?token=\w+", (folder / "log").read_text())
        assert address, (folder / "log").read_text()
        yield Lab(address[0], folder / "notebooks", psutil.Process(made.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(made.pid, signal.SIGTERM)
        made.wait(MINUTE)


class Opened:
    """One notebook in a tab of its own."""

    def __init__(self, lab: Lab, chromium, stem: str):
        self.lab, self.path = lab, lab.folder / f"{stem}.ipynb"
        self.page = chromium.new_page(viewport={"width": 1280, "height": 900})
        base, token = lab.address.split("/lab?")
        self.page.goto(f"{base}/lab/tree/{self.path.name}?reset&{token}")
        self.page.get_by_text(IDLE).wait_for(timeout=2 * MINUTE * 1000)

    def choose(self, menu: str, entry: str) -> None:
        """Choose an entry of a menu."""
        self.page.locator(".lm-MenuBar-itemLabel").get_by_text(menu, exact=True).click()
        self.page.locator(".lm-Menu-itemLabel").get_by_text(re.compile(f"^{entry}")).first.click()

    def saved(self) -> list[nbformat.NotebookNode]:
        """Return the code cells as they stand now, after saving them."""
        before, asked = self.path.stat().st_mtime_ns, time.monotonic()
        self.page.keyboard.press("Control+s")
        while True:
            self.page.wait_for_timeout(200)
            if self.path.stat().st_mtime_ns != before or time.monotonic() > asked + 3:  # then nothing had changed
                with contextlib.suppress(nbformat.reader.NotJSONError):  # it is being written
                    return [c for c in nbformat.read(self.path, as_version=4).cells if c.cell_type == "code"]
            assert time.monotonic() < asked + MINUTE

    def when(self, is_true, minutes: float) -> list[nbformat.NotebookNode]:
        """Return the code cells as soon as `is_true` is true of them."""
        deadline = time.monotonic() + minutes * MINUTE
        while not is_true(cells := self.saved()):
            assert time.monotonic() < deadline, [c.outputs for c in cells if c.outputs][-1:]
            self.page.wait_for_timeout(1000)
        return cells

    def idle(self) -> bool:
        """Return whether the kernel has nothing to do."""
        base, token = self.lab.address.split("/lab?")
        with urllib.request.urlopen(f"{base}/api/sessions?{token}") as answer:
            (kernel,) = [s["kernel"] for s in json.load(answer) if s["path"] == self.path.name]
        return kernel["execution_state"] == "idle"

    def run_all(self) -> None:
        """Choose Run All, until a cell runs: Lab passes over it while it still connects to the kernel."""
        for _ in range(10):
            self.choose("Run", "Run All Cells")
            self.page.wait_for_timeout(2000)
            if not self.idle() or any(c.execution_count for c in self.saved()):
                return
        raise AssertionError("nothing runs")

    def ended(self, minutes: float = 15) -> list[nbformat.NotebookNode]:
        """Return the code cells when the last has run or one has failed."""
        return self.when(lambda cells: self.idle() and (cells[-1].execution_count is not None or failures(cells)), minutes)

    def look_at(self, selector: str, text: str | re.Pattern = "") -> None:
        """Scroll to what holds this text; cells that are out of sight are not in the page."""
        element, view = self.page.locator(selector, has_text=text).first, self.page.locator(".jp-WindowedPanel-outer").first
        view.evaluate("e => e.scrollTo(0, 0)")
        for _ in range(60):
            self.page.wait_for_timeout(150)
            if element.is_visible():
                element.evaluate("e => e.scrollIntoView()")  # at once: a display that is updated meanwhile is another element
                break
            view.evaluate("e => e.scrollBy(0, 500)")
        self.page.wait_for_timeout(500)

    def close(self) -> None:
        """Close the tab and end the kernel, as by Shut Down Kernel."""
        base, token = self.lab.address.split("/lab?")
        with urllib.request.urlopen(f"{base}/api/sessions?{token}") as answer:
            sessions = json.load(answer)
        for session in sessions:
            request = urllib.request.Request(f"{base}/api/sessions/{session['id']}?{token}", method="DELETE")
            urllib.request.urlopen(request).close()
        self.page.close()


@pytest.fixture
def opened(lab, chromium):
    """Open a notebook by name; it is closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def open_one(stem: str) -> Opened:
            made = Opened(lab, chromium, stem)
            stack.callback(made.close)
            return made

        yield open_one


def outputs(cells: list, kind: str) -> list:
    return [o for c in cells for o in c.outputs if o.output_type == kind]


def failures(cells: list) -> list[str]:
    """Return what a reader sees of errors."""
    return ["\n".join(o.traceback) for o in outputs(cells, "error")]


def progress(cells: list) -> list[str]:
    """Return what stands in the displays that are kept up to date while a study runs."""
    texts = [o.data.get("text/plain", "") for o in outputs(cells, "display_data")]
    return [t for t in texts if STEPS.search(t)]


def all_ran(notebook: Opened, pictures: Path) -> list[nbformat.NotebookNode]:
    """Check that Run All ran every cell and that there is nothing to complain of; return the code cells."""
    cells = notebook.ended()
    assert not failures(cells)
    counts = [c.execution_count for c in cells]
    assert counts == list(range(counts[0], counts[0] + len(cells)))
    assert not [o.text for o in outputs(cells, "stream") if o.name == "stderr"], "no warning, of widgets or of anything else"
    assert max(len(c.outputs) for c in cells) <= 12, "no flood of outputs"
    assert notebook.path.stat().st_size < TWO_MB
    notebook.page.screenshot(path=pictures / f"lab_{notebook.path.stem}.png")
    return cells


def test_a_run_shows_its_progress_stops_when_it_is_interrupted_and_goes_on(lab, opened, pictures):
    notebook = opened(STUDY)
    notebook.run_all()
    (running,) = progress(notebook.when(lambda cells: any(re.match(r"([3-9]|\d\d) of ", t) for t in progress(cells)), minutes=6))
    assert len(running.splitlines()) > len(REST) and all(stage in running for stage in REST)  # a line for each stage that is left
    assert " left" in running and "█" in running
    assert lab.workers()
    notebook.look_at(".jp-OutputArea-output pre", STEPS)
    notebook.page.screenshot(path=pictures / "lab_running.png")
    notebook.choose("Kernel", "Interrupt Kernel")
    cells = notebook.when(lambda cells: failures(cells) and notebook.idle(), minutes=2)
    (message,) = failures(cells)
    assert message.startswith("Interrupted: stopped; finished steps are in the store") and len(message.splitlines()) == 1
    assert re.fullmatch(r"\d+ of \d+ steps; stopped", progress(cells)[0])
    assert not lab.workers()
    notebook.look_at(".jp-OutputArea-output pre", "Interrupted")
    notebook.page.screenshot(path=pictures / "lab_interrupted.png")
    done, steps = map(int, re.findall(r"\d+", progress(cells)[0]))
    notebook.run_all()
    cells = all_ran(notebook, pictures)
    (finished,) = progress(cells)
    left = int(re.fullmatch(r"(\d+) of \1 steps done in \d+:\d\d", finished)[1])
    assert left == steps - done, "what was finished is not computed again"
    notebook.look_at(".jp-OutputArea-output pre", STEPS)
    notebook.page.screenshot(path=pictures / "lab_finished.png")


@pytest.mark.night  # nbval runs their cells too, and the tests above and below run all cells of one
@pytest.mark.parametrize("stem", [s for s in NOTEBOOKS if s not in (STUDY, EXPLORER)])
def test_run_all_ends_with_every_cell_run_and_nothing_to_complain_of(opened, pictures, stem):
    notebook = opened(stem)
    notebook.run_all()
    all_ran(notebook, pictures)


def test_the_explorer_answers_to_its_widgets(opened, pictures):
    notebook = opened(EXPLORER)
    notebook.run_all()
    all_ran(notebook, pictures)
    page = notebook.page
    figure = page.locator(".widget-html img")
    figure.scroll_into_view_if_needed()
    students = re.match(r"Test accuracy of (\d+) students", figure.get_attribute("alt"))[1]
    page.screenshot(path=pictures / "lab_explorer.png")
    page.get_by_role("button", name="Basic", exact=True).click()
    page.wait_for_function("n => !document.querySelector('.widget-html img').alt.includes(` ${n} students`)", arg=students)
    fewer = figure.get_attribute("alt")
    assert int(re.search(r"(\d+) students", fewer)[1]) == int(students) - 2
    page.get_by_label("D_T", exact=True).select_option("news")
    page.wait_for_function("alt => document.querySelector('.widget-html img').alt != alt", arg=fewer)
    page.get_by_text(IDLE).wait_for()
    page.wait_for_timeout(2000)  # what the kernel has sent is drawn
    assert page.locator(".widget-html table").count() == 2
    page.locator(".widget-html table").last.scroll_into_view_if_needed()
    page.screenshot(path=pictures / "lab_explorer_texts.png")
    notebook.look_at("table.texts td")
    style = page.locator("table.texts td").first.evaluate("e => [getComputedStyle(e).textAlign, e.offsetWidth >= 200]")
    assert style == ["left", True], "a text is read from the left, in a column wide enough, whatever JupyterLab's rules for tables"
