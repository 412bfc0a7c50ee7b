"""The checks of a card: all of them where there is one, and how they are reported."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES


def _loaded(file: Path):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


gpu_checks = _loaded(EXAMPLES / "benchmarks/gpu_checks.py")


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name, _ in gpu_checks.CHECKS])
def test_what_must_hold_on_a_card(name: str) -> None:
    dict(gpu_checks.CHECKS)[name](gpu_checks.Card("cuda", quick=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["captured = eager, small, sgd, bfloat16", "mlp heads with little in common: captured = eager"]
)
def test_what_must_hold_in_rehearsal(name: str) -> None:
    dict(gpu_checks.CHECKS)[name](gpu_checks.Card("cpu", quick=True))


def test_a_check_that_fails_is_reported_and_the_others_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(card: object) -> str:
        raise AssertionError("differ by 1")

    monkeypatch.setattr(
        gpu_checks, "CHECKS", [("a", lambda card: "fine"), ("b", fails), ("c", lambda card: "fine too")]
    )
    assert gpu_checks.main(["--device", "cpu", "--quick"]) == 1
    out = capsys.readouterr().out
    assert "s  a: fine" in out
    assert "FAIL" in out
    assert "s  b: AssertionError: differ by 1" in out
    assert out.endswith("FIGURE checks that hold = 2 of 3\n")
