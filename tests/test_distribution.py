"""What is in the wheel and the source distribution, and what a package index is told."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

ROOT = Path(__file__).resolve().parents[1]


def build(root, target, out):
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return unpacked


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def files(folder):
    """Return the files below a folder, relative to it, without byte code."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_the_package_and_the_demos_and_nothing_else(wheel):
    package = {f"scratchvae/{name}" for name in files(ROOT / "scratchvae")}
    demos = {f"scratchvae/demos/{path.name}" for path in (ROOT / "demos").glob("*.py")}
    assert len(demos) >= 12
    assert names(wheel) == package | demos  # what lies in folders below is not among them


def test_the_source_distribution_holds_all_that_stands_at_the_top(source):
    top = {path.name for path in source.iterdir()} - {"PKG-INFO", ".gitignore"}
    assert top == {
        *("CHANGELOG.md", "CITATION.cff", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
        *("demos", "docs", "scratchvae", "tests"),
    }
    for folder in ("scratchvae", "tests", "demos"):
        assert files(source / folder) == files(ROOT / folder)
    assert not list(source.rglob("node_modules"))
    assert not (source / "docs" / "_build").exists()


def test_the_wheel_is_the_same_from_the_source_distribution(wheel, source, tmp_path):
    assert build(source, "wheel", tmp_path).read_bytes() == wheel.read_bytes()


def test_an_installed_package_lists_its_demos(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-m", "scratchvae", "demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("quick, ") == len(list((ROOT / "demos").glob("*.py")))


def metadata(home):
    """Return what is built into the package where pyproject.toml has this `home`."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    config["tool"]["hatch"]["metadata"]["hooks"]["custom"]["home"] = home
    return ProjectMetadata(str(ROOT), PluginManager(), config).core


def test_where_the_home_is_known_the_readmes_pictures_and_links_are_whole_addresses():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert metadata("").readme == readme
    assert metadata("").urls == {}
    found = metadata("https://example.org/scratchvae/")
    targets = re.findall(r'src="([^"]+)|\]\(([^)#]+)', found.readme)
    assert len(targets) >= 5
    start = "https://example.org/scratchvae/raw/v"
    for target in map("".join, targets):
        assert target.startswith(start)
        assert Path(ROOT, target.removeprefix(start).partition("/")[2]).is_file()
    assert found.urls == {
        "Source": "https://example.org/scratchvae",
        "Changelog": f"{start}{found.version}/CHANGELOG.md",
    }
