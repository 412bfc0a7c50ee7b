"""Settings, and paths given as text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cvcoteach._validation import InputError
from cvcoteach.pipeline.predict import predict
from cvcoteach.pipeline.retrain import retrain
from cvcoteach.pipeline.settings import Machine, RetrainSettings, Settings


def test_what_counts_as_clean_follows_the_preset_unless_said() -> None:
    assert RetrainSettings().selection == "flags"
    assert RetrainSettings(preset="paper").selection == "agreement"
    assert RetrainSettings(preset="paper", select="flags").selection == "flags"


def test_paths_may_be_text(tmp_path: Path) -> None:
    assert Machine(cache_dir=str(tmp_path)).cache_dir == tmp_path
    with pytest.raises(InputError, match="holds no run of cvcoteach"):
        retrain(str(tmp_path / "absent"), str(tmp_path / "model"))
    with pytest.raises(InputError, match="absent"):
        predict(str(tmp_path / "absent"), str(tmp_path), str(tmp_path / "answers.csv"))


def test_a_rule_for_flags_that_does_not_exist_is_refused() -> None:
    assert str(Settings().flag_rule) == "f1"
    assert str(Settings(min_probability=0.8).flag_rule) == "probability 0.8"
    with pytest.raises(InputError, match="flag_for is 'f2'; did you mean f1"):
        str(Settings(flag_for="f2").flag_rule)


def test_settings_load_no_torch() -> None:
    code = "import sys, cvcoteach.pipeline.settings, cvcoteach.pipeline.progress; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" not in loaded
