"""The digests of every step of four studies are those of the committed list: what was computed before is found again.

The list was written by `plan.make` before modules were moved. Digests depend on the content of data sets that are not in the
checkout and of this Python's documentation, so their sha256 are taken from the list as well, in the place of those of the files.
The studies `quick` and `desk-sst2` were redesigned since; the list has the settings that they had.
"""

import json
from pathlib import Path

import pytest

from pdstudy.data import other_domains, sources
from pdstudy.study import plan
from pdstudy.study.settings import Study

LISTED = json.loads((Path(__file__).parent / "data" / "digests.json").read_text())


@pytest.mark.parametrize("name", LISTED["steps"])
def test_the_steps_of_a_study_have_the_digests_of_the_committed_list(name, monkeypatch):
    of_name = {tuple(key.split()): sha256 for key, sha256 in LISTED["contents"].items()}
    known = dict(Study.read("smoke").resolved_task().elsewhere)
    monkeypatch.setattr(sources, "content_of", lambda split, part: of_name[split, part])
    monkeypatch.setattr(
        other_domains, "identity", lambda source: next(LISTED["elsewhere"][n] for n, other in known.items() if other == source)
    )
    study = Study.checked(LISTED["settings"][name]) if name in LISTED["settings"] else Study.read(name)
    study = study.model_copy(update={"precision": "fp32"})
    steps, listed = plan.make(study).steps, set(LISTED["steps"][name])
    assert [digest for digest in steps if digest in listed] == LISTED["steps"][name]
    added = [steps[digest] for digest in steps if digest not in listed]
    assert {step.stage for step in added} == {"linear", "evaluate"}  # the linear models came later
    assert all(step.stage == "linear" or steps[step.parents["model"]].stage == "linear" for step in added)
