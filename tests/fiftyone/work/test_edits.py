"""Edits in FiftyOne's own Annotate tab, through the API that it uses, beside corrections made here."""

from __future__ import annotations

import asyncio
import importlib
import warnings
from functools import cache
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import browse, corrections
from cvcoteach.fiftyone.work.edits import catch_up, n_edited, notice
from cvcoteach.fiftyone.work.export import export_corrected
from tests.fiftyone.calls import status
from tests.fiftyone.conftest import NoisyDataset
from tests.fiftyone.store.test_runs import imported

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")


@pytest.fixture
def many(tmp_path: Any) -> Any:
    """Ninety images of which thirty are flagged, with a finished run."""
    made = NoisyDataset.make(tmp_path, 90, 30)
    imported(made)
    yield made
    made.dataset.delete()


def annotate(made: Any, sample_id: str, value: str, path: str = "/ground_truth/label") -> int:
    """Change a sample as the Annotate tab does, by a JSON patch of the version that it last saw; the HTTP status."""
    seen = made.dataset._sample_collection.find_one({"_id": made.dataset[sample_id]._id})["last_modified_at"]
    return patch(made, sample_id, [{"op": "replace", "path": path, "value": value}], seen)


@cache
def app() -> Starlette:
    """The App's server, as far as it edits samples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FiftyOne's own, at import
        routes = importlib.import_module("fiftyone.server.routes.sample").SampleRoutes
    return Starlette(routes=[Route(path, endpoint) for path, endpoint in routes])


def patch(made: Any, sample_id: str, operations: list[dict[str, str]], seen: Any) -> int:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.patch(
                f"/dataset/{made.dataset._doc.id}/sample/{sample_id}",
                json=operations,
                headers={"If-Match": f'"{seen.isoformat()}"', "Content-Type": "application/json-patch+json"},
            )

    return asyncio.run(send()).status_code


def test_twenty_accepted_one_edited_in_the_annotate_tab_and_all_undone(many: Any) -> None:
    before, twenty = many.raw_labels(), many.wrong_ids[:20]
    for sample_id in twenty[:-1]:  # by key, one at a time
        corrections.accept_suggestions(many.dataset, [sample_id])
    corrections.accept_suggestions(many.dataset, twenty[-1:])
    other = next(name for name in CLASSES if name not in (many.labels()[many.ids.index(twenty[7])],))
    assert annotate(many, twenty[7], other) == 200

    for _ in range(19):
        corrections.undo_corrections(many.dataset)
    with pytest.raises(InputError, match="1 changed elsewhere"):
        corrections.undo_corrections(many.dataset)
    after = many.raw_labels()
    assert after[twenty[7]]["label"] == other
    assert {i for i in many.ids if after[i] != before[i]} <= {twenty[7]}
    history = corrections.history(many.dataset)
    mine = history[history.sample_id == twenty[7]]
    assert mine["what"].tolist() == ["accept", "edit"]
    assert mine["new"].tolist()[-1] == other
    assert mine["who"].tolist()[-1] == "unknown"
    assert status(many)[twenty[7]] == "set"
    assert len(history) == 20 + 19 + 1


def test_one_undo_of_twenty_accepted_at_once_leaves_the_one_edited(many: Any) -> None:
    before, twenty = many.raw_labels(), many.wrong_ids[:20]
    corrections.accept_suggestions(many.dataset, twenty)
    annotate(many, twenty[3], "spiral")
    done = corrections.undo_corrections(many.dataset)
    assert (len(done.ids), done.conflicts) == (19, 1)
    assert many.raw_labels()[twenty[3]]["label"] == "spiral"
    assert {i for i in many.ids if many.raw_labels()[i] != before[i]} == {twenty[3]}


def test_an_edit_leaves_the_queue_counts_as_wrong_and_goes_into_exports(run: Any, tmp_path: Any) -> None:
    results, one = runs.load(run.dataset), run.wrong_ids[0]
    annotate(run, one, "spiral")
    catch_up(run.dataset, results)
    done = browse.reviews(run.dataset, results)
    assert one not in browse.left(results, done).values("id")
    assert done.was_wrong.sum() == 1
    assert n_edited(run.dataset, results) == 1
    export_corrected(run.dataset, "csv", str(tmp_path / "out.csv"))
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert any(",spiral," in line and ",set," in line for line in lines)


def test_an_edit_is_noticed_once_and_a_second_one_again(run: Any) -> None:
    results, one = runs.load(run.dataset), run.wrong_ids[0]
    annotate(run, one, "spiral")
    assert (notice(run.dataset, results), notice(run.dataset, results)) == (1, 0)
    annotate(run, one, "ring")
    assert (notice(run.dataset, results), notice(run.dataset, results)) == (1, 0)
    assert corrections.history(run.dataset)["new"].tolist() == ["spiral", "ring"]


def test_what_is_not_another_class_is_no_edit(run: Any) -> None:
    """An attribute, a tag, a label taken away, and everything that is corrected here."""
    results = runs.load(run.dataset)
    corrections.accept_suggestions(run.dataset, run.wrong_ids[:2])
    corrections.set_label(run.dataset, run.wrong_ids[1:3], "ring")
    corrections.keep_labels(run.dataset, run.wrong_ids[2:4])
    corrections.undo_corrections(run.dataset, run.wrong_ids[2:3])
    annotate(run, run.wrong_ids[0], "nobody", "/ground_truth/annotator")
    run.dataset.select(run.wrong_ids[4:5]).tag_samples("looked at")
    run.dataset.set_values("ground_truth", {run.wrong_ids[5]: None}, key_field="id")
    assert notice(run.dataset, results) == 0


def test_an_attribute_edited_after_an_accept_is_not_lost_by_undo(run: Any) -> None:
    one, two = run.wrong_ids[:2]
    corrections.accept_suggestions(run.dataset, [one, two])
    annotate(run, one, "nobody", "/ground_truth/annotator")
    done = corrections.undo_corrections(run.dataset)
    assert (done.ids, done.conflicts) == ((two,), 1)
    assert run.raw_labels()[one]["annotator"] == "nobody"


def test_an_edit_of_another_field_does_not_stand_in_the_way_of_undo(run: Any) -> None:
    """The Annotate tab writes the whole sample."""
    before, one = run.raw_labels(), run.wrong_ids[0]
    corrections.accept_suggestions(run.dataset, [one])
    assert annotate(run, one, "elsewhere.png", "/filepath") == 200
    assert corrections.undo_corrections(run.dataset).ids == (one,)
    assert run.raw_labels() == before
    assert status(run)[one] == "unreviewed"


def test_the_tab_refuses_to_save_over_a_correction_that_it_has_not_seen(run: Any) -> None:
    one = run.wrong_ids[0]
    seen = run.dataset[one].last_modified_at
    corrections.accept_suggestions(run.dataset, [one])
    operations = [{"op": "replace", "path": "/ground_truth/label", "value": "spiral"}]
    assert patch(run, one, operations, seen) >= 400
    assert status(run)[one] == "accepted"
    assert "spiral" not in run.labels()
