"""The form of `retrain_coteaching`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cvcoteach.fiftyone.app.forms import Form
from cvcoteach.fiftyone.app.params import given
from cvcoteach.fiftyone.store.labelled import vector_fields
from cvcoteach.fiftyone.work.retrain import check_output

_NAMES = ("test_tag", "embeddings_field", "output", "epochs", "seed")


def fill(form: Form, ctx: Any) -> None:
    """Add the inputs: test samples, embeddings, where to keep the model, epochs, seed."""
    if tags := ctx.dataset.distinct("tags"):
        form.choice("test_tag", tags, "Tag of the test samples (if empty, a fifth is held out)")
    if vectors := vector_fields(ctx.dataset):
        form.choice("embeddings_field", vectors, "Embeddings to train heads on, instead of networks on the images")
    form.inputs.str("output", label="New folder to save the model in", required=False)
    form.check(lambda: check_output(ctx.params.get("output"), ctx.params.get("embeddings_field")))
    form.inputs.int("epochs", label="Epochs (if empty, chosen by the number of images)", min=1, required=False)
    form.inputs.int("seed", label="Seed", default=0, min=0, required=False)
    form.check(lambda: options(ctx.params), "number_problem")


def options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was chosen, as keyword arguments of `work.retrain.retrain`."""
    return given(params, dict(zip(_NAMES, _NAMES, strict=True)))
