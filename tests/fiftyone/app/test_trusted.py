"""What a form or a call may make the server run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fiftyone.operators.executor import ExecutionError

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app.trusted import TRUST_VARIABLE, allowed, check_code
from tests.fiftyone.calls import execute, form


@pytest.mark.parametrize(
    "params",
    [
        {"backbone": "helper:net"},
        {"backbone": "net.pt2"},
        {"backbone": "timm:hf-hub:somebody/net"},
        {"model": "helper:net"},
        {"model": "frozen:helper:net@32"},
    ],
)
def test_code_from_outside_is_refused_unless_the_server_allows_it(
    params: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=rf"whoever runs the server can allow it .* {TRUST_VARIABLE}="):
        check_code(params)
    monkeypatch.setenv(TRUST_VARIABLE, " helper:net, net.pt2,timm:hf-hub:somebody/net ")
    check_code(params)
    assert allowed() == ("helper:net", "net.pt2", "timm:hf-hub:somebody/net")


def test_models_of_the_libraries_and_our_own_are_not_code_from_outside() -> None:
    for params in ({}, {"backbone": "torchvision:resnet18"}, {"backbone": "timm:resnet18"}, {"model": "small"}):
        check_code(params)


def test_the_operator_imports_nothing_that_a_form_or_a_call_names(
    noisy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "marking.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    for params in ({"backbone": "marking:net"}, {"model": "marking:net"}):
        assert "whoever runs the server can allow it" in form("find_label_issues", noisy.dataset, params=params)
        with pytest.raises(ExecutionError, match="whoever runs the server can allow it"):
            execute("find_label_issues", noisy.dataset, params=params)
    assert not (tmp_path / "ran").exists()
