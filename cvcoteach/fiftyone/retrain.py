"""Retrain on the corrected labels by Co-teaching, and say what that bought."""

from __future__ import annotations

from typing import Any

from cvcoteach._checks import InputError
from cvcoteach.fiftyone.progress import Tell


class RetrainForm:
    """What can be chosen."""

    @staticmethod
    def fill(form: Any, ctx: Any) -> None:
        """The inputs."""
        form.inputs.str("test_tag", label="Tag of the test samples (accuracy before and after)", required=False)
        form.inputs.int("epochs", label="Epochs (the preset's if empty)", min=1, required=False)
        form.inputs.int("seed", label="Seed", default=0, min=0, required=False)

    @staticmethod
    def options(params: dict[str, Any]) -> dict[str, Any]:
        """Of `retrain`."""
        return {name: params[name] for name in ("test_tag", "epochs", "seed") if params.get(name) is not None}


def retrain(dataset: Any, brain_key: str | None, tell: Tell, **options: Any) -> dict[str, Any]:
    """Not there yet."""
    raise InputError("Co-teaching is not part of this version.")
