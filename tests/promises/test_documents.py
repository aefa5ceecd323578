"""What the documents promise exists."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_to_it(document):
    targets = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", document.read_text())
    for target in filter(None, (name for pair in targets for name in pair)):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(document):
    named = re.findall(r"\b(tests/[\w/]+\.py)(?:::(\w+))?", document.read_text())
    assert named or document.name != "failures.md"
    for file, function in named:
        assert (ROOT / file).is_file(), file
        found = re.search(rf"^def {function}\(", (ROOT / file).read_text(), re.MULTILINE)
        assert found or not function, f"{file}::{function}"


def test_every_option_in_the_readme_is_one_that_the_job_has(monkeypatch, capsys):
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    commands = re.findall(r"python jobs/(\w+)\.py ((?:[^\n]|\\\n)*)", "\n".join(blocks))
    assert len({job for job, _ in commands}) >= 5
    for job, arguments in commands:
        monkeypatch.setattr(sys, "argv", [job, "--help"])
        with pytest.raises(SystemExit):
            importlib.import_module(f"jobs.{job}").main()
        text = capsys.readouterr().out
        for option in re.findall(r"--[a-z-]+", arguments):
            assert re.search(rf"{option}\b", text), (job, option)


def test_the_constraints_name_versions_and_no_addresses():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"#.*|[a-z0-9-]+==[0-9][\w.+-]*", line), line
