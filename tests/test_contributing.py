"""The method that CONTRIBUTING.md shows works as shown, from a package outside the repository."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.records.folder import load_suite

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 40


def example() -> dict[str, str]:
    """Files of the example, by the path that precedes each code block."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    block = re.compile(r"^`(mymethods/\S+)`\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return dict(block.findall(text))


def test_the_example_is_short() -> None:
    files = example()
    assert sorted(files) == ["mymethods/mirror.py", "mymethods/mirror.yaml"]
    assert sum(text.count("\n") for text in files.values()) < MAX_LINES


@pytest.mark.slow
def test_the_example_passes_the_contract_and_runs_beside_the_others(tmp_path: Path) -> None:
    for name, text in example().items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "mymethods/__init__.py").write_text("")

    def growbench(*arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "benchmark", *arguments]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)

    growbench("check", "mymethods/mirror.yaml")
    few = "methods=[scratch,stacking]"  # the whole suite is a step of CI
    growbench("run", "smoke", few, "--method", "mymethods/mirror.yaml")
    runs = {run.method: run for run in load_suite(tmp_path / "results/local/smoke").runs}
    assert runs["mirror"].status == runs["scratch"].status == "done"
    growth = runs["mirror"].of("growth")[0]
    assert (growth["from"]["n_layer"], growth["to"]["n_layer"]) == (2, 4)
    assert "mirror" in (tmp_path / "results/local/smoke/report.md").read_text()
