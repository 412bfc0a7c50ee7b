"""Images or features ready for training."""

from __future__ import annotations

import numpy as np
import torch

from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.inputs import FeatureInputs, ImageInputs
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.normalisation import Scaling, scaling_of
from cvcoteach.training.recipe import Recipe
from tests.backbones import images

SMALL = ModelFactory(ModelSpec.parse("small"))


def test_images_are_normalised_by_those_that_are_trained_on() -> None:
    pixels = images(30)
    inputs = ImageInputs(pixels, SMALL, np.arange(10, 30))
    assert len(inputs) == 20
    source = inputs.batches(ComputePlan(), np.array([0, 5]))
    assert source.scaling == scaling_of(pixels, np.array([10, 15]))
    (batch,) = source.for_prediction([np.array([1])])
    expected = (
        torch.from_numpy(pixels[11]).permute(2, 0, 1) / 255 - torch.tensor(source.scaling.mean)[:, None, None]
    ) / (torch.tensor(source.scaling.std)[:, None, None])
    torch.testing.assert_close(batch[0], expected)


def test_images_of_a_pretrained_network_are_normalised_as_its_weights_were() -> None:
    models = ModelFactory(ModelSpec.parse("backbone:tests.backbones:colours"), trusted=["tests.backbones:colours"])
    assert ImageInputs(images(4), models).batches(ComputePlan(), np.arange(4)).scaling == Scaling(
        (0.0,) * 3, (1.0,) * 3
    )


def test_mirroring_is_decided_by_the_channels_and_never_for_features() -> None:
    assert ImageInputs(images(4), SMALL).adapted(Recipe()).flip is True
    assert ImageInputs(images(4, channels=1), SMALL).adapted(Recipe()).flip is False
    adapted = FeatureInputs(np.zeros((4, 5), np.float32)).adapted(Recipe(flip=True))
    assert (adapted.flip, adapted.shift) == (False, 0)


def test_features_get_heads_and_float32() -> None:
    inputs = FeatureInputs(np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32))
    plan = inputs.plan(Recipe(), 3, device="cpu", threads=1)
    assert (plan.device, plan.dtype, plan.threads, plan.resident) == ("cpu", "float32", 1, True)
    assert inputs.plan(Recipe(), 3, device="cpu", precision="bfloat16").dtype == "bfloat16"
    (batch,) = inputs.batches(plan, np.arange(4)).for_prediction([np.arange(4)])
    before = torch.get_rng_state()
    first, again, other = (inputs.network(3, seed)(batch) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == (4, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_are_computed_as_asked_for_or_as_a_probe_decides() -> None:
    inputs = ImageInputs(images(8), SMALL)
    asked = inputs.plan(Recipe(flip=False), 3, device="cpu", threads=1, precision="float32")
    assert (asked.threads, asked.dtype, asked.measured) == (1, "float32", {})
