"""Without the extras: what needs one says which, and changes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.story import story

# A module of this name that is no package stands for one that is not installed.
WITHOUT = (
    "import sys; sys.modules[{0!r}] = None; from prochist.cli.main import run; sys.exit(run())"
)


@pytest.mark.parametrize(
    ("module", "arguments", "remedy"),
    [
        (
            "pyarrow",
            ("export", "--format", "parquet", "--partition", "out"),
            "prochist[parquet]",
        ),
        ("sigma.backends.sqlite", ("hunt", "rule.yml"), "prochist[sigma]"),
    ],
)
def test_a_missing_extra_is_named_with_its_remedy(
    tmp_path: Path, module: str, arguments: tuple[str, ...], remedy: str
) -> None:
    story(tmp_path / "history.db")
    (tmp_path / "rule.yml").write_text("title: x")
    before = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(module), *arguments, "--db", "history.db"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parent.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "not installed" in done.stderr
    assert f"Hint: pip install '{remedy}'" in done.stderr
    assert done.stderr.count("\n") == 2
    assert sorted(tmp_path.iterdir()) == before
