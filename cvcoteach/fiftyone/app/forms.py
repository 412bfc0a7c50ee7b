"""Forms of the operators: they offer what fits, and say what does not before the button can be pressed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import fiftyone as fo
import fiftyone.operators.types as types
from fiftyone.operators.constants import ViewTarget

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app.progress import in_words
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields, label_fields
from cvcoteach.fiftyone.store.runs import DEFAULT_KEY
from cvcoteach.fiftyone.work import browse
from cvcoteach.fiftyone.work.staleness import changes_since


class Form:
    """A form under construction. `refuse` shows a sentence and disables the button."""

    def __init__(self, label: str, *, submit: str | None = None, description: str | None = None) -> None:
        """label: the title. submit: the button's text."""
        self.inputs = types.Object()
        options = {"submit_button_label": submit} if submit else {}
        self._view = types.PromptView(label=label, description=description, **options)

    def choice(
        self,
        name: str,
        values: Sequence[str] | Mapping[str, str],
        label: str,
        default: str | None = None,
        **options: Any,
    ) -> None:
        """Add a dropdown. values: names, or names with labels as a mapping."""
        view = types.DropdownView()
        for value in values:
            view.add_choice(value, label=values[value] if isinstance(values, Mapping) else value)
        self.inputs.enum(name, list(values), label=label, default=default, view=view, required=False, **options)

    def refuse(self, message: str, name: str = "problem") -> None:
        """Show what does not fit, and disable the button."""
        self.inputs.str(name, label=message, view=types.Error(label=message), invalid=True, error_message=message)

    def note(self, text: str, name: str = "note") -> None:
        """Show something to know before pressing the button."""
        self.inputs.view(name, types.Notice(label=text))

    def check(self, test: Callable[[], Any], name: str = "problem") -> Any:
        """Return what `test` returns; where it raises InputError, refuse the form with its sentence and return None."""
        try:
            return test()
        except InputError as error:
            self.refuse(str(error), name)
            return None

    @property
    def property(self) -> Any:
        """The value that an operator's `resolve_input` returns."""
        return types.Property(self.inputs, view=self._view)


Fill = Callable[[Any, Form, Any], None]


def filled(label: str, **options: Any) -> Callable[[Fill], Callable[[Any, Any], Any]]:
    """Make a `resolve_input` of a method that fills a form. Whatever goes wrong is shown in the form, which is refused.

    label, options: of the `Form`. An exception that escaped would leave an empty form without a message.
    """

    def decorate(fill: Fill) -> Callable[[Any, Any], Any]:
        @wraps(fill)
        def resolve_input(self: Any, ctx: Any) -> Any:
            form = Form(label, **options)
            try:
                fill(self, form, ctx)
            except Exception as error:
                form.refuse(in_words(error))
            return form.property

        return resolve_input

    return decorate


def dataset_of(ctx: Any) -> Any:
    """Return the dataset at hand. Raises InputError where it no longer exists."""
    try:
        dataset = ctx.dataset
    except ValueError as error:  # FiftyOne's, for a name or id that it does not find
        raise InputError(f"the dataset {ctx.dataset_name!r} no longer exists.") from error
    if dataset is None:
        raise InputError("there is no dataset; open one, or name it.")
    return dataset


def choose_target(form: Form, ctx: Any, *, whole: bool = False) -> None:
    """Ask what to work on: by default what is shown or selected, but the dataset where that is a view of the panel.

    Such a view holds what is left to review and the like, not what somebody wants to be trained on or exported.
    whole: the dataset is the default in any view.
    """
    looking = ctx.has_custom_view and browse.listed(ctx.view) is not None
    form.inputs.view_target(ctx, default_target=ViewTarget.DATASET if whole or looking else None)


def choose_key(form: Form, ctx: Any, label_field: str | None) -> None:
    """Ask for the brain key of a new run about `label_field` and, where it is taken, whether to replace that run."""
    form.inputs.str("brain_key", label="Brain key", default=DEFAULT_KEY, required=False)
    key, overwrite = ctx.params.get("brain_key") or DEFAULT_KEY, bool(ctx.params.get("overwrite"))
    if key in ctx.dataset.list_brain_runs():
        form.inputs.bool("overwrite", label=f"Replace the run {key!r}", default=False, required=False)
    form.check(lambda: runs.check_key(ctx.dataset, key, label_field, overwrite=overwrite), "key_problem")
    if overwrite and (end := runs.end_of_reviews(ctx.dataset, key)):
        form.note(end, "end_of_reviews")


def choose_run(form: Form, ctx: Any) -> runs.FindLabelIssuesResults | None:
    """Add a dropdown of the runs, and return the chosen one; None where none can be used."""
    keys = runs.keys(dataset_of(ctx))
    if not keys:
        form.refuse(runs.no_run(ctx.dataset))
        return None
    if len(keys) > 1 or ctx.params.get("brain_key"):
        form.choice("brain_key", keys, "Run", default=keys[0])
    results: runs.FindLabelIssuesResults | None = form.check(
        lambda: runs.load(ctx.dataset, ctx.params.get("brain_key") or keys[0])
    )
    if results is not None:
        for number, sentence in enumerate(changes_since(ctx.dataset, results)):
            form.note(sentence, f"stale_{number}")
    return results


def choose_engine(form: Form) -> None:
    """Ask whether one process computes, or Ray on all GPUs of the machine, or of the cluster that RAY_ADDRESS names."""
    names = {"serial": "one process", "ray": "Ray: all GPUs of the machine, or the cluster that RAY_ADDRESS names"}
    form.choice("engine", names, "What computes", default="serial")


def choose_label_field(form: Form, ctx: Any) -> str | None:
    """Add a dropdown of all label fields, including those that cannot be checked: choosing one of these says why."""
    usable = label_fields(ctx.dataset)
    schema = ctx.dataset.get_field_schema(ftype=fo.EmbeddedDocumentField)
    ours = {name for key in runs.keys(ctx.dataset) for name in Fields(key).all}
    others = [
        name for name, field in schema.items()
        if name not in usable and name not in ours and issubclass(field.document_type, fo.Label)
    ]  # fmt: skip
    if not usable and not others:
        form.refuse("the dataset has no label field; a Classification field with one label per image is needed.")
        return None
    default = usable[0] if usable else others[0]
    chosen: str = ctx.params.get("label_field") or default
    names = [*usable, *others]
    form.choice("label_field", names if chosen in names else [*names, chosen], "Label field", default=default)
    return chosen
