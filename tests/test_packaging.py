"""What is installed: the wheel's contents, and how the two scripts find what they need.

The scripts are run for real, with a PATH of the test's making. Installing from the
package index is not tried here: contrib/check does so itself, for itself and for the wheel.
"""

import email
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel of the checkout, without the network and without a trace in the checkout."""
    pytest.importorskip("hatchling", reason="contrib/check has it for one Python only")
    out = tmp_path_factory.mktemp("dist")
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    return zipfile.ZipFile(out / done.stdout.split()[-1])


def test_the_wheel_carries_every_file_of_schema(wheel: zipfile.ZipFile) -> None:
    files = sorted((CHECKOUT / "schema").iterdir())
    assert files
    for file in files:
        assert wheel.read(f"prochist/schema/{file.name}") == file.read_bytes()


@pytest.mark.parametrize("name", ["prochist.service", "prochist.sysusers.conf", "prochist.toml"])
def test_the_wheel_carries_what_install_service_installs(wheel: zipfile.ZipFile, name: str) -> None:
    assert wheel.read(f"prochist/contrib/{name}") == (CHECKOUT / "contrib" / name).read_bytes()


def test_the_wheel_carries_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    inside = {
        name
        for name in wheel.namelist()
        if ".dist-info/" not in name
        and not name.startswith(("prochist/schema/", "prochist/contrib/"))
    }
    outside = {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / "prochist").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert inside == outside


def test_the_wheel_needs_three_packages_and_python_3_11(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = email.message_from_bytes(wheel.read(name))
    wanted = metadata.get_all("Requires-Dist", [])
    needs = {need.partition(">")[0] for need in wanted if "extra ==" not in need}
    assert needs == {"apsw", "click", "tabulate"}
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"


def test_the_wheel_installs_the_program(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    assert b"prochist = prochist.__main__:main" in wheel.read(name)


# --- contrib/run ---


def small_checkout(beside: Path) -> Path:
    """Make a checkout, in a path with a space, whose prochist says how it was called."""
    place = beside / "a checkout"
    shutil.copytree(CHECKOUT / "contrib", place / "contrib")
    (place / "prochist/cli").mkdir(parents=True)
    (place / "prochist/__init__.py").touch()
    (place / "prochist/cli/__init__.py").touch()
    (place / "prochist/cli/main.py").write_text(
        "import os, subprocess, sys\n"
        "def main() -> int:\n"
        "    code = 'import prochist.cli.main, sys; sys.exit(9)'\n"
        "    assert subprocess.run([sys.executable, '-I', '-c', code]).returncode == 9\n"
        "    print(os.getpid(), os.getcwd(), *sys.argv[1:], sep='|')\n"
        "    return 7\n"
    )
    (place / "pyproject.toml").write_text(
        '[project]\ndependencies = []\n[dependency-groups]\ntest = []\ndev = ["left-out"]\n'
    )
    return place


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a small checkout whose contrib/run was never used."""
    return small_checkout(tmp_path)


def run(checkout: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run contrib/run of a checkout, with nothing of our own environment but what is given."""
    return subprocess.run(
        [checkout / "contrib/run", *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": str(checkout.parent), **environ},
        cwd=checkout.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def python_on_path(directory: Path, *, named: str = "python3", script: str | None = None) -> str:
    """Return a PATH with bash, the usual programs, and one Python: ours, or a shell script."""
    directory.mkdir()
    for source in ("/bin", "/usr/bin"):
        for program in sorted(Path(source).iterdir()):
            link = directory / program.name
            if not program.name.startswith("python") and not link.is_symlink():
                link.symlink_to(program)
    if script is None:
        (directory / named).symlink_to(Path(sys.executable).resolve())
    else:
        (directory / named).write_text(f"#!/bin/bash\n{script}\n")
        (directory / named).chmod(0o755)
    return str(directory)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Return a PATH whose python3 is the one that runs this test."""
    return python_on_path(tmp_path / "bin")


def test_the_first_use_says_what_it_makes_and_later_ones_say_nothing(
    checkout: Path, path: str
) -> None:
    first = run(checkout, "query", "a b", PATH=path)
    assert first.returncode == 7, first.stderr
    assert f"making a virtual environment in {checkout}.venv" in first.stderr
    assert first.stdout.split("|", 1)[1] == f"{checkout.parent}|query|a b\n"
    second = run(checkout, "query", PATH=path)
    assert (second.returncode, second.stderr) == (7, "")


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small checkout whose contrib/run was used once; for tests that leave it as it is."""
    place = small_checkout(tmp_path_factory.mktemp("used"))
    before = sorted(place.rglob("*"))
    first = run(place, PATH=python_on_path(place.parent / "bin"))
    assert first.returncode == 7, first.stderr
    assert sorted(place.rglob("*")) == before
    return place


def test_nothing_is_left_behind_but_the_environment(used: Path) -> None:
    beside = {entry.name for entry in used.parent.iterdir()}
    assert beside == {"a checkout", "a checkout.venv", "bin"}
    assert not list(used.rglob("__pycache__"))


def test_the_process_that_was_started_becomes_prochist(used: Path) -> None:
    with subprocess.Popen([used / "contrib/run"], stdout=subprocess.PIPE, text=True) as started:
        out, _ = started.communicate(timeout=60)
    assert int(out.split("|")[0]) == started.pid


def test_the_script_may_be_a_symbolic_link(used: Path, tmp_path: Path) -> None:
    link = tmp_path / "prochist"
    link.symlink_to(used / "contrib/run")
    done = subprocess.run([link, "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")


def test_the_code_is_always_the_present_code(checkout: Path, path: str) -> None:
    run(checkout, PATH=path)
    (checkout / "prochist/cli/main.py").write_text("def main() -> int:\n    return 5\n")
    assert run(checkout, PATH=path).returncode == 5


def test_a_changed_pyproject_without_new_packages_makes_no_new_environment(
    checkout: Path, path: str
) -> None:
    run(checkout, PATH=path)
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("[tool.other]\n")
    for _ in range(2):
        done = run(checkout, PATH=path)
        assert (done.returncode, done.stderr) == (7, "")


def test_a_new_package_makes_a_new_environment_and_a_failure_keeps_the_old_one(
    checkout: Path, path: str
) -> None:
    run(checkout, PATH=path)
    old = (checkout / "pyproject.toml").read_text()
    (checkout / "pyproject.toml").write_text(old.replace("[]", '["no-such-package"]', 1))
    refused = run(checkout, PATH=path, PIP_NO_INDEX="1")
    assert refused.returncode == 3
    assert "Error: the packages that prochist needs could not be installed" in refused.stderr
    assert "Hint: " in refused.stderr
    (checkout / "pyproject.toml").write_text(old)
    again = run(checkout, PATH=path)
    assert (again.returncode, again.stderr) == (7, "")
    beside = {entry.name for entry in checkout.parent.iterdir()}
    assert beside == {"a checkout", "a checkout.venv", "bin"}


def test_an_interrupted_set_up_is_done_again(checkout: Path, path: str) -> None:
    leavings = checkout.parent / "a checkout.venv.new.Xyz123"
    (leavings / "bin").mkdir(parents=True)
    done = run(checkout, PATH=path)
    assert done.returncode == 7, done.stderr
    assert not leavings.exists()


def test_two_first_uses_at_once_make_one_environment(checkout: Path, path: str) -> None:
    both = [
        subprocess.Popen(
            [checkout / "contrib/run"],
            env={"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [7, 7]
    assert sum("making a virtual environment" in error for error in errors) == 1


def test_an_environment_of_a_moved_checkout_is_not_believed(checkout: Path, path: str) -> None:
    run(checkout, PATH=path)
    moved = checkout.parent / "moved"
    checkout.rename(moved)
    Path(f"{checkout}.venv").rename(f"{moved}.venv")
    done = run(moved, PATH=path)
    assert done.returncode == 7, done.stderr
    assert "making a virtual environment" in done.stderr


def test_a_python_that_went_away_is_replaced(checkout: Path, path: str) -> None:
    run(checkout, PATH=path)
    for python in Path(f"{checkout}.venv/bin").glob("python*"):
        python.unlink()
        python.symlink_to("/nonexistent/python3")
    done = run(checkout, PATH=path)
    assert done.returncode == 7, done.stderr
    assert "making a virtual environment" in done.stderr


def test_a_missing_python_is_named_with_its_remedy(checkout: Path, tmp_path: Path) -> None:
    path = python_on_path(tmp_path / "bin", named="elsewhere")
    done = run(checkout, PATH=path)
    assert done.returncode == 3
    assert done.stderr == (
        "Error: python3 was not found\nHint: apt-get install python3 python3-venv\n"
    )


def test_a_python_that_is_too_old_is_named(checkout: Path, tmp_path: Path) -> None:
    old = '[[ $1 == --version ]] && echo "Python 3.9.2" && exit; exit 1'
    done = run(checkout, PATH=python_on_path(tmp_path / "bin", script=old))
    assert done.returncode == 3
    assert "Error: prochist needs Python 3.11 or newer; this is Python 3.9.2" in done.stderr


def test_a_newer_python_beside_one_that_is_too_old_is_taken(checkout: Path, tmp_path: Path) -> None:
    path = python_on_path(tmp_path / "bin", script="exit 1")
    newer = Path(path) / "python3.11"
    newer.symlink_to(Path(sys.executable).resolve())
    assert run(checkout, PATH=path).returncode == 7


def test_a_python_without_venv_names_the_package(checkout: Path, tmp_path: Path) -> None:
    real = Path(sys.executable).resolve()
    lacking = (
        f'[[ "$*" != *ensurepip* ]] || exit 1\n[[ "$*" != *realpath* ]] || {{ echo "$0"; exit; }}\n'
        f'exec "{real}" "$@"'
    )
    done = run(checkout, PATH=python_on_path(tmp_path / "bin", script=lacking))
    assert done.returncode == 3
    assert "cannot make a virtual environment" in done.stderr
    assert "Hint: apt-get install python3-venv" in done.stderr


def test_a_place_that_cannot_be_written_is_replaced_by_the_cache(
    checkout: Path, path: str, tmp_path: Path
) -> None:
    """A plain file in the way refuses root as well, which a read-only directory does not."""
    Path(f"{checkout}.venv").touch()
    if os.geteuid() == 0:
        pytest.skip("as root the cache is /var/cache, which tests leave alone")
    done = run(checkout, PATH=path, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 7, done.stderr
    assert list((tmp_path / "cache/prochist").iterdir())
