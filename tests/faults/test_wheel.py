"""A report by the installed wheel, outside the checkout."""

from pathlib import Path

import pytest

from pdstudy.storage import paths


@pytest.mark.faults
def test_a_report_in_a_workspace_writes_there_and_nowhere_else(installed, workspace):
    before = {p: p.stat().st_mtime_ns for p in (paths.ROOT / "notebooks").iterdir()}
    page = installed("report", "params/smoke.yaml", folder=workspace).splitlines()[-1]
    assert page == str(workspace / "outputs" / "smoke" / "reports" / "index.html") and Path(page).is_file()
    assert (workspace / "outputs" / "smoke" / "claims.json").is_file()
    assert before == {p: p.stat().st_mtime_ns for p in (paths.ROOT / "notebooks").iterdir()}
