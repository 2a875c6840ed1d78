"""The documentation as it is built: strict, complete, and without requests to other servers."""

import os
import re
import subprocess
import sys

import pytest
import readme

from pdstudy.storage import paths

pytestmark = pytest.mark.docs
ROOT = paths.ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The documentation, built strictly: a link that leads nowhere or a page outside the navigation fails."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_documentation_builds_and_asks_nobody(site):
    built = list(site.rglob("*.html"))
    assert len(built) >= len(list((ROOT / "docs").rglob("*.md")))
    for page in built:
        asked = re.findall(
            r"""<(?:script|link|img|iframe|source)[^>]*(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""", page.read_text()
        )
        assert not asked, f"{page.name} asks {asked}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(https?:)?//|@import", sheet.read_text()), sheet


def test_the_reference_holds_every_module_once():
    named = re.findall(r"^::: pdstudy\.([\w.]+)$", "\n".join(p.read_text() for p in readme.REFERENCE.glob("*.md")), re.MULTILINE)
    package = ROOT / "pdstudy"
    modules = [".".join(p.relative_to(package).with_suffix("").parts) for p in package.rglob("*.py") if p.stem != "__init__"]
    assert sorted(named) == sorted(modules)
