"""Who learns what from whom."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from cvcoteach.coteaching.losses import Exchange, coteaching_losses, n_kept
from cvcoteach.training.devices import available_devices
from cvcoteach.training.loop import Batch

CPU = torch.device("cpu")


def test_what_is_easy_does_not_depend_on_what_it_counts() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([40.0, 30.0, 20.0, 10.0])
    weights = torch.tensor([0.0, 1.0, 1.0, 0.5])
    for_a, for_b = coteaching_losses(a, b, 2, weights)
    assert float(for_a) == (3.0 + 0.5 * 4.0) / 2
    assert float(for_b) == 30.0 / 2


def test_of_a_batch_one_image_at_least_is_kept() -> None:
    assert n_kept(128, 0.6) == 76
    assert n_kept(10, 0.7) == 7, "0.7 · 10 is 6.999… in floating point"
    assert n_kept(2, 0.1) == 1
    loss, _ = coteaching_losses(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 1.0]), n_kept(2, 0.1))
    assert float(loss) == 2.0


def test_each_network_is_trained_on_what_its_peer_finds_easy() -> None:
    a, b = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([40.0, 30.0, 20.0, 10.0])
    for_a, for_b = coteaching_losses(a, b, 2)
    assert float(for_a) == 3.5, "B finds the last two easy"
    assert float(for_b) == 35.0, "A finds the first two easy"


def test_the_loss_is_the_mean_over_what_is_kept_and_divided_by_nothing_else() -> None:
    a = torch.full((100,), 2.0)
    assert float(coteaching_losses(a, a, 80)[0]) == 2.0


def test_nothing_flows_back_through_what_was_left_out() -> None:
    a = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    b = torch.tensor([3.0, 1.0, 2.0])
    coteaching_losses(a, b, 2)[0].backward()
    assert a.grad is not None
    assert a.grad.tolist() == [0.0, 0.5, 0.5]


def test_the_keep_rate_is_applied_to_the_whole_batch_once_candidates_are_in_it() -> None:
    exchange = Exchange(lambda epoch: 0.5)
    logits = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for_a, _ = exchange([logits, logits.detach()], Batch(torch.arange(30), torch.zeros(30, dtype=torch.long), 1))
    for_a.backward()
    assert logits.grad is not None
    assert int((logits.grad.abs().sum(dim=1) > 0).sum()) == 15, "half of 20 selected and 10 candidates"


@pytest.mark.parametrize("device", [name for name in available_devices() if ":" not in name])
def test_the_losses_are_computed_wherever_the_networks_are(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(50, generator=generator), torch.rand(50, generator=generator)
    there = coteaching_losses(a.to(device), b.to(device), 30)
    assert there[0].device.type == device
    assert [float(loss) for loss in there] == pytest.approx([float(loss) for loss in coteaching_losses(a, b, 30)])


def test_a_single_loss_that_is_not_a_number_stops_though_it_is_never_among_the_smallest() -> None:
    exchange = Exchange(lambda epoch: 0.5)
    logits = torch.randn(8, 3)
    broken = logits.clone()
    broken[3] = math.nan
    targets = torch.zeros(8, dtype=torch.int64)
    for_a, for_b = exchange([logits, broken], Batch(torch.arange(8), targets, 5))
    assert for_a.isnan()
    assert for_b.isnan()


def test_cross_entropy_of_each_sample_is_torchs() -> None:
    exchange = Exchange(lambda epoch: 1.0)
    logits, targets = torch.randn(8, 3), torch.randint(0, 3, (8,))
    for_a, for_b = exchange([logits, 2 * logits], Batch(torch.arange(8), targets, 5))
    assert float(for_a) == pytest.approx(float(functional.cross_entropy(logits, targets)), rel=1e-6)
    assert float(for_b) == pytest.approx(float(functional.cross_entropy(2 * logits, targets)), rel=1e-6)
    kept, left_out, agreement, images = exchange.take_record()
    assert math.isnan(left_out)
    assert (agreement, images) == (1.0, 8)
    assert kept == pytest.approx((float(for_a) + float(for_b)) / 2, rel=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rate", [0.1, 0.55, 1.0])
def test_an_exchange_of_fixed_shapes_is_the_same_exchange(rate: float, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(40, generator=generator) if weighted else None
    targets = torch.randint(0, 3, (40,), generator=generator)
    cut, masked = Exchange(lambda epoch: rate, weights), Exchange(lambda epoch: rate, weights)
    masked.fix(0, [10, 10, 11], CPU)
    for start, stop in ((0, 10), (10, 20), (20, 31)):
        a, b = (torch.randn(stop - start, 3, generator=generator).requires_grad_() for _ in range(2))
        rows = torch.arange(start, stop)
        gradients = []
        for exchange in (cut, masked):
            losses = torch.stack(list(exchange([a, b], Batch(rows, targets[rows], 0))))
            gradients.append((losses.detach(), *torch.autograd.grad(losses.sum(), (a, b))))
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)
    assert masked.take_record() == pytest.approx(cut.take_record(), rel=1e-5, nan_ok=True)


def test_an_exchange_of_fixed_shapes_stops_at_a_loss_that_is_not_finite_and_only_there() -> None:
    for value in (math.nan, math.inf):
        exchange = Exchange(lambda epoch: 0.5)
        exchange.fix(0, [8], CPU)
        logits = torch.randn(8, 3)
        broken = logits.clone()
        broken[3] = value
        for_a, for_b = exchange([logits, broken], Batch(torch.arange(8), torch.zeros(8, dtype=torch.int64), 5))
        assert for_a.isnan()
        assert for_b.isnan()


def test_what_is_fixed_for_an_epoch_stays_where_it_is_and_ends() -> None:
    exchange = Exchange(lambda epoch: 1.0 if epoch else 0.5)
    exchange.fix(0, [8, 9], CPU)
    assert exchange._sums is not None
    places = [exchange._sums.data_ptr(), *(count.data_ptr() for count in exchange._keep.values())]
    assert [int(count) for count in exchange._keep.values()] == [4, 4]
    exchange.fix(1, [8, 9], CPU)
    assert [exchange._sums.data_ptr(), *(count.data_ptr() for count in exchange._keep.values())] == places
    assert [int(count) for count in exchange._keep.values()] == [8, 9]
    exchange.unfix()
    logits, targets = torch.randn(8, 3), torch.zeros(8, dtype=torch.int64)
    exchange([logits, logits], Batch(torch.arange(8), targets, 0))
    assert exchange.take_record()[3] == 8
