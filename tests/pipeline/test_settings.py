"""Settings, and paths given as text."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cvcoteach._validation import InputError
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.pipeline.predict import predict
from cvcoteach.pipeline.retrain import retrain
from cvcoteach.pipeline.settings import InMemorySettings, Machine, RetrainSettings, Settings
from cvcoteach.training.recipe import Recipe


def test_what_counts_as_clean_follows_the_preset_unless_said() -> None:
    assert RetrainSettings().selection == "flags"
    assert RetrainSettings(preset="paper").selection == "agreement"
    assert RetrainSettings(preset="paper", select="flags").selection == "flags"


def test_every_image_is_learned_by_the_posterior_unless_something_says_what_counts_as_clean() -> None:
    assert RetrainSettings().training_mode == "posterior"
    assert RetrainSettings(preset="paper").training_mode == "paper"
    assert RetrainSettings(select="agreement").training_mode == "paper"
    assert RetrainSettings(select="flags").training_mode == "incv"
    assert RetrainSettings(mode="correct", select="flags").training_mode == "correct"
    assert RetrainSettings(mode="paper").selection == "agreement"


def test_the_rule_of_the_rounds_follows_the_preset_unless_said() -> None:
    assert Settings().cross_validation == IterativeCV()
    assert Settings(preset="paper").cross_validation == IterativeCV("agreement")
    assert Settings(preset="paper", select="posterior").selection == "posterior"
    asked = Settings(select="agreement", n_rounds=2, n_folds=3, remove_ratio=0.5, seed=7)
    assert asked.cross_validation == IterativeCV("agreement", 2, 3, 0.5, 7)
    assert InMemorySettings().cross_validation == IterativeCV()
    assert InMemorySettings("incv", 2, 3, 7).cross_validation == IterativeCV("agreement", 2, 3, seed=7)
    with pytest.raises(InputError, match="select is 'agrement'; did you mean agreement"):
        _ = Settings(select="agrement").cross_validation


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


def test_a_preset_or_a_head_that_does_not_exist_is_refused_even_where_nothing_would_be_trained_by_it() -> None:
    with pytest.raises(InputError, match="preset is 'fats'; did you mean fast"):
        Settings(preset="fats", features="features.npy")
    with pytest.raises(InputError, match="head is 'liner'; did you mean linear"):
        Settings(head="liner")


def test_settings_load_no_torch() -> None:
    code = "import sys, cvcoteach.pipeline.settings, cvcoteach.pipeline.progress; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" not in loaded


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((Settings, name) for name in ("epochs", "image_size", "patience", "n_rounds", "n_folds", "seed")),
        *((RetrainSettings, name) for name in ("epochs", "image_size", "seed")),
        *((Machine, name) for name in ("threads", "max_pixels", "workers_per_fold")),
        *((IterativeCV, name) for name in ("n_rounds", "n_folds", "seed")),
    ],
)
def test_a_whole_float_is_a_whole_number_and_anything_else_a_sentence(kind: Any, name: str) -> None:
    ray = {"engine": "ray"} if name == "workers_per_fold" else {}
    made = getattr(kind(**ray, **{name: 8.0}), name)
    assert (made, type(made)) == (8, int)
    for odd, sentence in ((8.5, "8.5; it takes a whole number"), ("8", "'8'; it takes a number"), (True, "True; it")):
        with pytest.raises(InputError, match=rf"^{name} is {sentence}"):
            kind(**ray, **{name: odd})
    with pytest.raises(InputError, match=rf"^{name} is -1; it takes \d or more\.$"):
        kind(**ray, **{name: -1})


def test_a_probability_and_a_rate_are_numbers() -> None:
    with pytest.raises(InputError, match=r"^min_probability is '0\.5'; it takes a number\.$"):
        _ = Settings(min_probability="0.5").flag_rule  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^learning_rate is '0\.1'; it takes a number\.$"):
        Recipe(learning_rate="0.1")  # type: ignore[arg-type]
