"""Captured steps, rehearsed on a CPU under the rules of a graph: they give what eager steps give."""

from __future__ import annotations

import gc
import io
import random
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cvcoteach._validation import InputError, IntArray
from cvcoteach.training.batches import DeviceImages, FeatureBatches, ImageBatches
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.engine import steps as engine_steps
from cvcoteach.training.engine.rehearsal import RehearsedGraphs
from cvcoteach.training.engine.steps import CapturedSteps, NotCapturableError, state_of, unchanged
from cvcoteach.training.fitting import fit
from cvcoteach.training.loop import Batch, Losses, Training, cross_entropy
from cvcoteach.training.networks import CifarResNet, SmallNet, feature_head
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.together import run_together

CPU = torch.device("cpu")
EAGER, CAPTURED = ComputePlan(), ComputePlan(captured=True)
RECIPE = Recipe(epochs=3, batch_size=9, learning_rate=0.05, shift=1, flip=True)
N = 40  # batches of 9 and of 8
ROUNDING = 1e-5


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build()


class Simple(nn.Module):
    """Batch normalisation and a linear layer; what it does before them is given."""

    def __init__(self, first: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.first = first
        self.norm, self.linear = nn.BatchNorm2d(3), nn.Linear(3 * 64, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.linear(self.norm(self.first(images)).flatten(1))
        return out


def images(plan: ComputePlan, subset: IntArray | None = None) -> ImageBatches:
    pixels = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
    return ImageBatches(DeviceImages(pixels, plan, subset), Scaling((0.5,) * 3, (0.25,) * 3))


def training(
    plan: ComputePlan,
    build: Callable[[], nn.Module] = Simple,
    *,
    recipe: Recipe = RECIPE,
    seed: int = 0,
    losses: Losses = cross_entropy,
    note: Callable[[str], None] | None = None,
) -> Training:
    def refused(sentence: str) -> None:
        raise AssertionError(sentence)

    rows = np.arange(N)
    network = plan.placed(seeded(build, seed))
    return Training([network], images(plan), rows, rows % 3, recipe, seed=seed, losses=losses, note=note or refused)


def state(of: Training) -> Tensor:
    return torch.cat([value.double().flatten() for n in of.networks for value in n.state_dict().values()])


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_captured_epochs_end_as_eager_ones(optimizer: str) -> None:
    recipe = replace(RECIPE, optimizer=optimizer, learning_rate=0.01)
    eager, captured = training(EAGER, recipe=recipe), training(CAPTURED, recipe=recipe)
    reports: tuple[list[float], list[float]] = ([], [])
    for each, losses in zip((eager, captured), reports, strict=True):
        fit(each, lambda report, losses=losses: losses.append(report.loss))
    torch.testing.assert_close(state(captured), state(eager), rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(reports[1], reports[0], rtol=ROUNDING)


@pytest.mark.parametrize(
    ("build", "plan"),
    [
        (lambda: SmallNet(3, 3), ComputePlan(captured=True, dtype="bfloat16", channels_last=True)),
        (lambda: SmallNet(3, 3), CAPTURED),
        (lambda: CifarResNet(3, 3, n=1), CAPTURED),
    ],
)
def test_our_networks_can_be_captured(build: Callable[[], nn.Module], plan: ComputePlan) -> None:
    recipe = replace(RECIPE, epochs=2)
    eager, captured = (
        training(replace(plan, captured=False), build, recipe=recipe),
        training(plan, build, recipe=recipe),
    )
    fit(eager)
    fit(captured)
    torch.testing.assert_close(state(captured), state(eager), rtol=1e-4, atol=1e-4)


def test_a_body_moves_less_in_captured_steps_too() -> None:
    recipe = replace(RECIPE, body_rate=0.1)
    eager, captured = training(EAGER, recipe=recipe), training(CAPTURED, recipe=recipe)
    fit(eager)
    fit(captured)
    torch.testing.assert_close(state(captured), state(eager), rtol=ROUNDING, atol=ROUNDING)


def test_trainings_side_by_side_end_as_each_alone() -> None:
    alone = [training(EAGER, seed=seed) for seed in range(3)]
    together = [training(CAPTURED, seed=seed) for seed in range(3)]
    for each in alone:
        fit(each)
    for _ in range(RECIPE.epochs):
        reports = run_together(together)
    assert [report.epoch for report in reports] == [3, 3, 3]
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(state(other), state(one), rtol=ROUNDING, atol=ROUNDING)


def test_dropout_is_what_it_is_alone_though_others_train_beside_it() -> None:
    def build() -> nn.Module:
        return Simple(nn.Dropout(0.5))

    alone = [training(EAGER, build, seed=seed) for seed in range(2)]
    together = [training(CAPTURED, build, seed=seed) for seed in range(2)]
    for each in alone:
        fit(each)
    for _ in range(RECIPE.epochs):
        run_together(together)
    assert together[0].is_random
    assert not training(CAPTURED).is_random
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(state(other), state(one), rtol=ROUNDING, atol=ROUNDING)


def test_a_captured_training_resumes_from_the_state_of_an_eager_one_and_back() -> None:
    recipe = replace(RECIPE, optimizer="adam", learning_rate=0.01)
    unbroken = training(EAGER, recipe=recipe)
    fit(unbroken)
    plans = [EAGER, CAPTURED, EAGER]
    state_dict = None
    for plan in plans:
        part = training(plan, recipe=recipe, seed=0)
        if state_dict is not None:
            part.load_state_dict(state_dict)
        part.run_epoch()
        file = io.BytesIO()
        torch.save(part.state_dict(), file)
        file.seek(0)
        state_dict = torch.load(file, weights_only=True)
    torch.testing.assert_close(state(part), state(unbroken), rtol=ROUNDING, atol=ROUNDING)


def test_a_state_loaded_between_epochs_is_trained_on() -> None:
    eager, captured = training(EAGER), training(CAPTURED)
    for each in (eager, captured):
        each.run_epoch()
        first = {**each.state_dict()}
        first = torch.load(_saved(first), weights_only=True)
        each.run_epoch()
        each.load_state_dict(first)
        fit(each)
    torch.testing.assert_close(state(captured), state(eager), rtol=ROUNDING, atol=ROUNDING)


def _saved(content: dict[str, object]) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


@pytest.mark.parametrize(
    "first",
    [
        lambda x: x * 2 if bool(x.mean() > 100) else x,
        lambda x: x * float(x.std()),
        lambda x: x[x.mean(dim=(1, 2, 3)) > -100],
    ],
    ids=["control flow", "a number", "a shape"],
)
def test_a_network_that_waits_for_the_device_is_trained_step_by_step(first: Callable[[Tensor], Tensor]) -> None:
    notes: list[str] = []
    eager = training(EAGER, lambda: Simple(first))
    captured = training(CAPTURED, lambda: Simple(first), note=notes.append)
    fit(eager)
    fit(captured)
    assert torch.equal(state(captured), state(eager))
    assert len(notes) == 1
    assert notes[0].startswith("steps run one by one, since they cannot be captured (aten::")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_what_could_not_be_captured_is_as_it_was(optimizer: str) -> None:
    def broken(x: Tensor) -> Tensor:
        return x * float(x.std())

    started = training(CAPTURED, lambda: Simple(broken), recipe=replace(RECIPE, optimizer=optimizer), note=[].append)
    before, numbers = state(started), torch.get_rng_state()
    assert not started.begin()
    assert torch.equal(state(started), before)
    assert torch.equal(torch.get_rng_state(), numbers)


def test_losses_that_may_change_with_the_epoch_are_not_captured() -> None:
    def halved(logits: Sequence[Tensor], batch: Batch) -> list[Tensor]:
        return [functional.cross_entropy(each, batch.targets) / (1 + batch.epoch) for each in logits]

    notes: list[str] = []
    eager, captured = training(EAGER, losses=halved), training(CAPTURED, losses=halved, note=notes.append)
    fit(eager)
    fit(captured)
    assert torch.equal(state(captured), state(eager))
    assert notes == ["steps run one by one, not captured: the losses may change with the epoch."]


def test_a_loss_that_is_not_a_number_ends_a_captured_epoch() -> None:
    broken = training(CAPTURED, recipe=replace(RECIPE, learning_rate=1e30, schedule="constant"))
    with pytest.raises(InputError, match=r"the loss is nan in batch \d of epoch 1 at a learning rate of 1e\+30; "):
        broken.run_epoch()


def test_rows_of_a_subset_are_those_of_eager_steps() -> None:
    subset = np.arange(N)[::-2].copy()
    ends = []
    for plan in (EAGER, CAPTURED):
        network, rows = seeded(Simple), np.arange(3, 20)
        source = images(plan, subset)
        each = Training([network], source, rows, rows % 3, RECIPE, seed=1)
        fit(each)
        ends.append(state(each))
    torch.testing.assert_close(ends[1], ends[0], rtol=ROUNDING, atol=ROUNDING)


def test_heads_on_features_are_captured() -> None:
    features = np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32)
    recipe = replace(RECIPE, shift=0, flip=False)
    ends = []
    for plan in (EAGER, CAPTURED):
        head = seeded(lambda: feature_head(6, 3))
        each = Training([head], FeatureBatches(features, plan), np.arange(N), np.arange(N) % 3, recipe, seed=1)
        fit(each)
        ends.append(state(each))
    torch.testing.assert_close(ends[1], ends[0], rtol=ROUNDING, atol=ROUNDING)


def test_images_that_are_fetched_batch_by_batch_are_not_captured() -> None:
    notes: list[str] = []
    plan = replace(CAPTURED, resident=False)
    each = training(plan, note=notes.append)
    fit(each)
    assert notes == ["steps run one by one, not captured: the inputs are fetched batch by batch."]


def test_batches_may_grow_between_epochs() -> None:
    def order(epoch: int, rng: np.random.Generator) -> list[IntArray]:
        return np.array_split(rng.permutation(N)[: 20 + 10 * epoch], 3 + epoch)

    ends = []
    for plan in (EAGER, CAPTURED):
        rows = np.arange(N)
        each = Training([seeded(Simple)], images(plan), rows, rows % 3, RECIPE, seed=1, order=order)
        fit(each)
        ends.append(state(each))
    torch.testing.assert_close(ends[1], ends[0], rtol=ROUNDING, atol=ROUNDING)


def test_what_was_captured_is_freed_with_its_training_though_nobody_collects_garbage() -> None:
    gc.collect()
    gc.disable()
    try:
        each = training(CAPTURED)
        fit(each)
        kept = [weakref.ref(each), weakref.ref(each._captured), weakref.ref(each.networks[0])]
        del each
        assert [reference() for reference in kept] == [None, None, None]
    finally:
        gc.enable()


class Greedy(Simple):
    """Runs out of memory in training, from some call on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.calls, self.after = 0, after

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > self.after:
            raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")
        return super().forward(images)


def full(self: RehearsedGraphs, step: Callable[[], None]) -> Callable[[], None]:
    raise RuntimeError("CUDA error: out of memory")


def test_a_lone_training_that_memory_does_not_hold_captured_goes_on_step_by_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RehearsedGraphs, "capture", full)
    notes: list[str] = []
    eager, captured = training(EAGER), training(CAPTURED, note=notes.append)
    kept = weakref.ref(captured._captured)
    fit(eager)
    fit(captured)
    assert torch.equal(state(captured), state(eager))
    assert notes == ["the memory of cpu is full: steps run one by one, not captured."]
    assert kept() is None, "its memory is free"


def test_memory_that_runs_out_in_a_later_capture_spoils_no_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    def order(epoch: int, rng: np.random.Generator) -> list[IntArray]:
        return np.array_split(rng.permutation(N), 4 + epoch)  # other sizes each time

    ends = []
    for plan in (EAGER, CAPTURED):
        rows = np.arange(N)
        each = Training([seeded(Simple)], images(plan), rows, rows % 3, RECIPE, seed=1, order=order, note=[].append)
        each.run_epoch()
        monkeypatch.setattr(RehearsedGraphs, "capture", full)
        fit(each)
        monkeypatch.undo()
        ends.append(state(each))
    torch.testing.assert_close(ends[1], ends[0], rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("after", [0, 14], ids=["from the start", "among steps that were launched"])
@pytest.mark.parametrize("plan", [EAGER, CAPTURED], ids=["eager", "captured"])
def test_where_a_lone_training_does_not_fit_at_all_it_is_one_sentence(plan: ComputePlan, after: int) -> None:
    each = training(plan, lambda: Greedy(after), note=[].append)
    with pytest.raises(InputError, match=r"the memory of cpu does not hold .* in batches of up to 9; .*--image-size"):
        fit(each)


# -- the steps by themselves -------------------------------------------------------------------------------------


def steps(step: Callable[[int], None], network: nn.Module) -> CapturedSteps:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return CapturedSteps(RehearsedGraphs(CPU), step, lambda: state_of([network]), optimizer, rewind=lambda: None)


def test_a_rehearsal_refuses_a_step_that_changes() -> None:
    runs: list[int] = []
    x = torch.zeros(4)

    def step(size: int) -> None:
        runs.append(size)
        x[: min(len(runs), 4)].add_(1)

    captured = steps(step, nn.Linear(1, 1))
    captured.prepare([2])
    captured.run(2)  # the fourth run
    captured.run(2)
    runs.clear()
    with pytest.raises(RuntimeError, match="a replayed step is not what was captured"):
        captured.run(2)


def test_memory_that_runs_out_is_not_taken_for_a_step_that_cannot_be_captured() -> None:
    def step(size: int) -> None:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        finally:
            if size == 2:
                raise RuntimeError("capture was invalidated")

    for size in (1, 2):
        with pytest.raises(torch.OutOfMemoryError):
            steps(step, nn.Linear(1, 1)).prepare([size])
    with pytest.raises(NotCapturableError, match="no way"):
        steps(lambda size: (_ for _ in ()).throw(RuntimeError("no way\nat all")), nn.Linear(1, 1)).prepare([1])


def test_after_a_capture_that_broke_off_on_its_way_nothing_is_captured_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_steps, "_broken", [])

    def broken(self: RehearsedGraphs, step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    captured = steps(lambda size: None, nn.Linear(1, 1))
    captured.prepare([1])
    with monkeypatch.context() as patched:
        patched.setattr(RehearsedGraphs, "capture", broken)
        with pytest.raises(NotCapturableError, match="operation not permitted"):
            steps(lambda size: None, nn.Linear(1, 1)).prepare([1])
    captured.prepare([1])  # captured before
    notes: list[str] = []
    eager, other = training(EAGER), training(CAPTURED, note=notes.append)
    fit(eager)
    fit(other)
    assert torch.equal(state(other), state(eager))
    assert notes == [
        "steps run one by one, since they cannot be captured (an earlier capture in this process broke off: operation "
        "not permitted)."
    ]


def test_after_a_refused_warm_up_or_full_memory_others_are_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(size: int) -> None:
        torch.ones(1).item()

    with pytest.raises(NotCapturableError, match="waits for the device"):
        steps(waits, nn.Linear(1, 1)).prepare([1])
    with monkeypatch.context() as patched:
        patched.setattr(RehearsedGraphs, "capture", full)
        with pytest.raises(torch.OutOfMemoryError):
            steps(lambda size: None, nn.Linear(1, 1)).prepare([1])
    steps(lambda size: None, nn.Linear(1, 1)).prepare([1])


class OtherDevice(RehearsedGraphs):
    """Graphs of a device with random numbers of its own, which nothing draws."""

    def __init__(self) -> None:
        super().__init__(torch.device("mps"))

    def random_state(self) -> Tensor:
        return torch.zeros(1)


@pytest.mark.parametrize(
    ("draw", "what"),
    [
        (random.random, "Python's random"),
        (np.random.random, "numpy.random"),
        (lambda: torch.rand(1), "torch on the CPU"),
    ],
)
def test_random_numbers_that_a_graph_would_repeat_are_not_captured(draw: Callable[[], object], what: str) -> None:
    network = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def step(size: int) -> None:
        draw()

    captured = CapturedSteps(OtherDevice(), step, lambda: state_of([network]), optimizer, rewind=lambda: None)
    before = random.getstate(), np.random.get_state()[1:3], torch.get_rng_state()  # noqa: NPY002
    with pytest.raises(NotCapturableError, match=f"random numbers of {what} would be the same in every step"):
        captured.prepare([1])
    after = random.getstate(), np.random.get_state()[1:3], torch.get_rng_state()  # noqa: NPY002
    assert str(after) == str(before), "as if nothing had been tried"
    assert (after[1][0] == before[1][0]).all()


def test_a_network_that_draws_from_numpy_is_trained_as_if_nothing_had_been_tried() -> None:
    def noisy(x: Tensor) -> Tensor:
        return x * float(np.random.random()) if np.random.random() < 0.5 else x  # noqa: NPY002

    notes: list[str] = []
    ends = []
    for plan in (EAGER, CAPTURED):
        np.random.seed(0)  # noqa: NPY002
        each = training(plan, lambda: Simple(noisy), note=notes.append)
        fit(each)
        ends.append(state(each))
    assert torch.equal(ends[0], ends[1])
    assert len(notes) == 1
    assert "numpy.random" in notes[0]


def test_what_a_warm_up_changes_is_given_back_in_place() -> None:
    network = seeded(Simple)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    before = {name: (value.data_ptr(), value.clone()) for name, value in network.state_dict().items()}
    for turn in range(2):
        momentum = [state["exp_avg"].clone() for state in optimizer.state.values()]
        with unchanged(state_of([network]), optimizer, CPU):
            network(torch.randn(4, 3, 8, 8)).square().mean().backward()
            optimizer.step()
        after = network.state_dict()
        if turn == 0:
            assert all(not s["exp_avg"].any() and s["step"] == 0 for s in optimizer.state.values())
            assert all(torch.equal(after[name], value) for name, (_, value) in before.items())
            network(torch.randn(4, 3, 8, 8)).square().mean().backward()
            optimizer.step()
            before = {name: (value.data_ptr(), value.clone()) for name, value in network.state_dict().items()}
        else:
            assert all(torch.equal(after[name], value) for name, (_, value) in before.items())
            kept = [state["exp_avg"] for state in optimizer.state.values()]
            assert all(torch.equal(a, b) for a, b in zip(momentum, kept, strict=True))
    assert all(network.state_dict()[name].data_ptr() == place for name, (place, _) in before.items())
