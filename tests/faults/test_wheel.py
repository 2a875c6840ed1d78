"""A report by the installed wheel, outside the checkout."""

from pathlib import Path

import pytest


@pytest.mark.faults
@pytest.mark.night
def test_a_report_of_the_installed_wheel_is_written_to_the_outputs_of_the_workspace(installed, workspace):
    page = installed("report", "params/smoke.yaml", folder=workspace).splitlines()[-1]
    assert page == str(workspace / "outputs" / "smoke" / "reports" / "index.html") and Path(page).is_file()
    assert (workspace / "outputs" / "smoke" / "claims.json").is_file()
    assert sorted(p.name for p in workspace.iterdir()) == ["README.md", "notebooks", "outputs", "params"]
