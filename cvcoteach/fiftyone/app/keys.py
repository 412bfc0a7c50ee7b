"""The keys in an open sample: correct it and move on. The page opens the next sample, the server writes meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import fiftyone.operators as foo

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app.chosen_run import chosen_run
from cvcoteach.fiftyone.app.names import panels_in
from cvcoteach.fiftyone.app.progress import errors_in_words, in_app, in_words
from cvcoteach.fiftyone.app.reviewing import DOORS
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import object_ids
from cvcoteach.fiftyone.work import browse, bulk, corrections
from cvcoteach.fiftyone.work.actions import audit_of
from cvcoteach.fiftyone.work.corrections import Correction
from cvcoteach.fiftyone.work.edits import catch_up
from cvcoteach.fiftyone.work.unseen import unseen_in

HINT = "a accept \u00b7 k keep \u00b7 e exclude \u00b7 u undo"
"""What the keys do in an open sample."""
AHEAD = "ahead"
"""What a page asks for when a sample is open: what the keys do, and the samples to come."""
QUIET, MORE = "quiet", "more"
"""Parameters of one of several presses: it has no toast of its own, and others follow it."""


class ReviewAndMoveOn(foo.Operator):
    """Correct the open sample by one key, and open the next worst."""

    @property
    def config(self) -> foo.OperatorConfig:
        """Name the operator for FiftyOne."""
        return foo.OperatorConfig(name="review_and_move_on", label="Review and move on", unlisted=True)

    @errors_in_words
    def execute(self, ctx: Any) -> dict[str, Any]:
        """Do what `what` says ("accept", "keep", "exclude", "undo") to `sample_id`, else to the open sample.

        A page adds `press`, 24 hex digits by which it may ask again without a thing being done twice; `opened` once it
        has opened the next sample itself; `first` where nobody had reviewed the sample as far as it knew; to an undo,
        `own`, the numbers of its own earlier presses, which are taken back before anybody else's. The answer
        holds the samples to come as `ahead`, those of them that somebody has `reviewed`, or why it is `refused`.
        Fast hands send several as `presses`, a list of such parameters: each is an action of its own, done in this
        order as if asked for alone, and `answers` holds what became of each.
        """
        presses = ctx.params.get("presses")
        return self._answer(ctx) if presses is None else {"answers": self._answers(ctx, presses)}

    def _answers(self, ctx: Any, presses: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Do what each press asks for; the last answer alone holds the samples to come, and one toast tells of all."""
        answers = []
        for n_left, press in zip(range(len(presses) - 1, -1, -1), presses, strict=True):
            ctx.params = {**press, QUIET: True, MORE: n_left > 0}
            answers.append(self._answer(ctx))
        done = [answer for answer in answers if "done" in answer]
        if done:
            ids = {what: [i for one in done if one["done"] == what for i in one["ids"]] for what in _in_order(done)}
            told = [Correction(what, tuple(of_it)).message for what, of_it in ids.items()]
            ctx.ops.notify(" ".join(told) + "".join(one["end"] for one in done), variant="success")
        return answers

    def _answer(self, ctx: Any) -> dict[str, Any]:
        what, sample_id = ctx.params.get("what", ""), ctx.params.get("sample_id") or ctx.current_sample
        if not in_app(ctx):
            return review_and_move_on(ctx, what, sample_id)
        try:
            key = chosen_run(ctx)
            if key is None:
                return {}  # a dataset without a run has no such keys
            ctx.params.setdefault("brain_key", key)
            if what == AHEAD:
                results = runs.load(ctx.dataset, key)
                again = sample_id is not None and browse.is_reviewed(ctx.dataset, results, sample_id)
                return {"hint": HINT, **_ahead(ctx, results, sample_id, again=again)}
            return review_and_move_on(ctx, what, sample_id)
        except Exception as error:  # nobody sees the exception of an operator that no form has started
            ctx.ops.notify(in_words(error), variant="error")
            return {"refused": in_words(error)}


def review_and_move_on(ctx: Any, what: str, sample_id: str | None) -> dict[str, Any]:
    """Correct the sample and open the next worst; after an undo, open the sample whose correction was taken back.

    An undo applies to the sample where it has a correction, else to the last correction of a single sample: a key does
    not undo what was done to many at once.
    """
    key, press = ctx.params.get("brain_key"), ctx.params.get("press")
    if sample_id is None and what != "undo":
        raise InputError("no sample is open.")
    results = runs.load(ctx.dataset, key)
    if what == "undo":
        ids = [_last_single(ctx.dataset, results, sample_id, press, ctx.params.get("own") or ())]
        done = corrections.undo_corrections(ctx.dataset, ids, key, who=ctx.user_id, press=press)
        following: str | None = done.ids[0] if done.ids else sample_id
        ahead = _ahead(ctx, results, following)
    else:
        if what not in DOORS:
            raise InputError(f"what is {what!r}; there are accept, keep, exclude and undo.")
        assert sample_id is not None
        if what == "accept" and sample_id in unseen_in(_view(ctx)):
            raise InputError("this label is shown without a suggestion to accept: keep it (k), or set another.")
        if ctx.params.get("first"):
            catch_up(ctx.dataset, results)
        again = browse.is_reviewed(ctx.dataset, results, sample_id)
        if again and ctx.params.get("first") and not _corrected_by(ctx.dataset, results, press):
            raise InputError(
                "somebody else has reviewed this sample in the meantime; a second press decides otherwise."
            )
        done = DOORS[what](ctx.dataset, [sample_id], key, who=ctx.user_id, press=press)
        ahead = {} if ctx.params.get(MORE) else _ahead(ctx, results, sample_id, again=again)
        following = next(iter(ahead.get("ahead", ())), None)
    answer = {"message": done.message, "ids": list(done.ids), "sample": sample_id, "next": following}
    if in_app(ctx):
        end = _last_of_class(ctx, results, sample_id) if what in ("accept", "exclude") else ""
        if following is None and not ctx.params.get(MORE):
            end += " That was the last one: every flagged label in this view has been reviewed."
        answer |= {"done": done.what, "end": end}
        if not ctx.params.get(QUIET):
            ctx.ops.notify(done.message + end, variant="success")
        if following is not None and not ctx.params.get("opened"):
            ctx.ops.open_sample(id=following)
        answer |= ahead
    return answer


def _in_order(done: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what was done, each once, in the order in which it was done first."""
    return list(dict.fromkeys(one["done"] for one in done))


def _view(ctx: Any) -> Any:
    """Return the view that the App shows; None for the whole dataset."""
    return ctx.view if ctx.has_custom_view else None


def _ahead(
    ctx: Any, results: runs.FindLabelIssuesResults, sample_id: str | None, *, again: bool = False
) -> dict[str, list[str]]:
    """Return the samples to review after this one, those of them that somebody has reviewed, and the open panels."""
    done = browse.reviews(ctx.dataset, results)
    ids = browse.ahead(results, done, sample_id, _view(ctx), again=again)
    reviewed = done.reviewed[results.rows(ids)].tolist()
    return {
        "ahead": ids,
        "reviewed": [one for one, known in zip(ids, reviewed, strict=True) if known],
        "panels": [panel.component_id for panel in panels_in(ctx.spaces)],
    }


def _corrected_by(dataset: Any, results: runs.FindLabelIssuesResults, press: str | None) -> list[Any]:
    """Return the samples that this very press has corrected, when it was sent for the first time."""
    return audit_of(dataset, results).samples_of({"_id": object_ids([press])[0]}) if press else []


def _last_single(
    dataset: Any,
    results: runs.FindLabelIssuesResults,
    sample_id: str | None,
    press: str | None = None,
    own: Sequence[str] = (),
) -> str:
    """Return the sample that an undo in the modal applies to; the same again where `press` is on record.

    own: presses of the page that asks; what they did is taken back before what was done elsewhere.
    """
    if before := _corrected_by(dataset, results, press):
        return str(before[0])
    audit = audit_of(dataset, results)
    here = object_ids([sample_id] if sample_id is not None else [])
    if audit.effective(here):
        return str(here[0])
    ours = set(object_ids(own))
    actions = sorted(audit.undoable(), key=lambda action: action["_id"] not in ours) if ours else audit.undoable()
    for action in actions:
        ids = audit.samples_of(action)
        if len(ids) == 1 and any(link["action"] == action["_id"] for link in audit.effective(ids).values()):
            return str(ids[0])
    raise InputError(
        "there is no correction of this or another single sample to take back; "
        "in the grid, Undo takes back the last action."
    )


def _last_of_class(ctx: Any, results: runs.FindLabelIssuesResults, sample_id: str | None) -> str:
    """Return a sentence where the class that the run judged has no image left; empty otherwise."""
    (given,) = results.given([str(sample_id)])
    if given is None or not bulk.is_empty(ctx.dataset, results, given):
        return ""
    return f" The class {given!r} has no image left."
