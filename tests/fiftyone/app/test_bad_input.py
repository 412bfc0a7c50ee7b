"""Input that does not fit: a sentence in the form, whose button is off, or a toast; never a frozen bar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from fiftyone.operators.executor import ExecutionError

from cvcoteach.fiftyone.app.operators import OPERATORS
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import corrections
from tests.fiftyone.calls import context, execute, form, in_the_app, notes, operator, properties, toasts
from tests.fiftyone.store.test_runs import imported
from tests.fiftyone.work.test_find import with_embeddings

FIELDS = Fields("label_issues")
WITH_A_RUN = ("accept_suggestions", "keep_labels", "set_label", "exclude_samples", "undo_corrections")
WITH_A_RUN += ("export_corrected", "retrain_coteaching")


def test_a_good_form_refuses_nothing(noisy: Any) -> None:
    assert form("find_label_issues", noisy.dataset) == ""


def test_an_empty_view_is_refused(noisy: Any) -> None:
    view = noisy.dataset.match(fo.ViewField("ground_truth.label") == "nothing")
    assert "the view is empty" in form("find_label_issues", noisy.dataset, view=view)


def test_one_class_is_refused(noisy: Any) -> None:
    view = noisy.dataset.match(fo.ViewField("ground_truth.label") == "ring")
    assert "one class only (ring)" in form("find_label_issues", noisy.dataset, view=view)


def test_boxes_are_out_of_scope_and_the_form_says_so(noisy: Any) -> None:
    noisy.dataset.add_sample_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    said = form("find_label_issues", noisy.dataset, params={"label_field": "boxes"})
    assert "boxes holds Detections; only labels of whole images (Classification) are checked" in said


def test_a_field_of_another_kind_is_refused_in_a_sentence(noisy: Any) -> None:
    with pytest.raises(ExecutionError, match="filepath holds String; it takes a Classification"):
        execute("find_label_issues", noisy.dataset, params={"label_field": "filepath"})


def test_a_key_in_use_is_refused_until_replacing_is_allowed(noisy: Any) -> None:
    imported(noisy)
    assert "there is already a run 'label_issues'" in form("find_label_issues", noisy.dataset)
    assert form("find_label_issues", noisy.dataset, params={"overwrite": True}) == ""
    with pytest.raises(ExecutionError, match="there is already a run 'label_issues'"):
        execute("find_label_issues", noisy.dataset)


def test_the_form_says_what_replacing_a_run_puts_an_end_to(noisy: Any) -> None:
    imported(noisy)
    assert notes("find_label_issues", noisy.dataset, params={"overwrite": True}) == []
    corrections.keep_labels(noisy.dataset, noisy.wrong_ids[:1])
    [note] = notes("find_label_issues", noisy.dataset, params={"overwrite": True})
    assert (
        "discards 1 review: corrected labels stay, and so does their record, but they can no longer be undone" in note
    )


@pytest.mark.parametrize("name", ["find_label_issues", "import_label_issues"])
def test_replacing_a_run_of_another_label_field_is_refused_before_anything_runs(noisy: Any, name: str) -> None:
    imported(noisy)
    noisy.dataset.clone_sample_field("ground_truth", "second_opinion")
    params = {"label_field": "second_opinion", "overwrite": True, "folder": "anywhere"}
    assert "is about ground_truth, not second_opinion" in form(name, noisy.dataset, params=params)
    [(variant, message)] = toasts(in_the_app(name, noisy.dataset, params=params))
    assert (variant, "is about ground_truth, not second_opinion" in message) == ("error", True)


def test_corrections_before_a_run_are_refused(noisy: Any) -> None:
    for name in ("accept_suggestions", "keep_labels", "undo_corrections", "export_corrected", "retrain_coteaching"):
        assert "have not been checked yet: find label issues first" in form(name, noisy.dataset), name


def test_a_stale_run_is_refused(noisy: Any) -> None:
    imported(noisy)
    noisy.dataset.delete_sample_field(FIELDS.quality)
    assert "is stale" in form("accept_suggestions", noisy.dataset)


def test_an_export_does_not_overwrite(noisy: Any, tmp_path: Path) -> None:
    imported(noisy)
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(ExecutionError, match="already exists"):
        execute("export_corrected", noisy.dataset, params={"kind": "csv", "to": str(tmp_path / "out.csv")})
    assert (tmp_path / "out.csv").read_text() == "mine"


ALL = [made().name for made in OPERATORS if not made().config.unlisted]


@pytest.mark.parametrize("name", ALL)
def test_a_deleted_dataset_is_said_in_the_form(name: str) -> None:
    assert form(name, "deleted long ago") == "the dataset 'deleted long ago' no longer exists."


@pytest.mark.parametrize("name", ["find_label_issues", "import_label_issues", "retrain_coteaching", "export_corrected"])
def test_a_dataset_deleted_after_the_form_is_a_toast(name: str) -> None:
    params = {"to": "anything", "folder": "anything"}
    assert toasts(in_the_app(name, "deleted long ago", params=params)) == [
        ("error", "the dataset 'deleted long ago' no longer exists.")
    ]


@pytest.mark.slow
def test_a_dataset_deleted_while_the_run_is_under_way_is_a_toast(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvcoteach.fiftyone.work import find as issues

    with_embeddings(noisy)
    copy = noisy.dataset.clone()
    run = issues._run

    def deleting(*arguments: Any) -> Any:
        copy.delete()
        return run(*arguments)

    monkeypatch.setattr(issues, "_run", deleting)
    told = in_the_app("find_label_issues", copy, params={"embeddings_field": "embedding", "rounds": 1})
    assert toasts(told) == [("error", f"the dataset {copy.name!r} was deleted in the meantime; nothing was saved.")]


def test_an_error_nobody_foresaw_is_a_toast_with_its_name(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("something")

    monkeypatch.setattr("cvcoteach.fiftyone.app.operators.find_label_issues", broken)
    told = in_the_app("find_label_issues", noisy.dataset)
    assert told[-2][0] == "set_progress"  # the bar does not stay where it was
    assert told[-2][1]["progress"] == 1
    [(variant, message)] = toasts(told)
    assert variant == "error"
    assert message.startswith("KeyError: 'something' (the full traceback is in the log")


@pytest.mark.slow
def test_an_error_after_the_work_is_a_toast_too(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no panel")

    monkeypatch.setattr("cvcoteach.fiftyone.app.operators._show", broken)
    with_embeddings(noisy)
    told = in_the_app("find_label_issues", noisy.dataset, params={"embeddings_field": "embedding", "rounds": 1})
    assert [variant for variant, _ in toasts(told)] == ["error"]


def test_an_error_nobody_foresaw_in_a_form_is_said_there(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("something")

    monkeypatch.setattr("cvcoteach.fiftyone.app.operators.look_quickly", broken)
    assert form("find_label_issues", noisy.dataset).startswith("KeyError: 'something'")


def test_an_error_nobody_foresaw_in_a_correction_has_words(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(noisy)

    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("something")

    monkeypatch.setattr(corrections, "accept_suggestions", broken)
    with pytest.raises(ExecutionError, match=r"KeyError: 'something' .the full traceback is in the log"):
        execute("accept_suggestions", noisy.dataset, selected=noisy.wrong_ids[:1])


def test_missing_labels_and_files_are_counted_in_the_form_and_do_not_stop_it(noisy: Any) -> None:
    noisy.dataset.set_values("ground_truth", {noisy.ids[0]: None, noisy.ids[1]: None}, key_field="id")
    Path(noisy.dataset[noisy.ids[2]].filepath).unlink()
    assert form("find_label_issues", noisy.dataset) == ""
    assert notes("find_label_issues", noisy.dataset) == [
        "2 samples without a label will be left out.",
        "The files of 1 sample are missing; these will be left out.",
    ]


def test_all_files_missing_is_said_in_the_form(noisy: Any) -> None:
    for path in noisy.dataset.values("filepath"):
        Path(path).unlink()
    assert "none of the files of 60 samples exists" in form("find_label_issues", noisy.dataset)
    with_embeddings(noisy)
    assert form("find_label_issues", noisy.dataset, params={"embeddings_field": "embedding"}) == ""


def test_patches_are_no_images(noisy: Any) -> None:
    noisy.dataset.add_sample_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    sample = noisy.dataset.first()
    sample["boxes"] = fo.Detections(detections=[fo.Detection(label="ring", bounding_box=[0, 0, 1, 1])])
    sample.save()
    said = form("find_label_issues", noisy.dataset, view=noisy.dataset.to_patches("boxes"))
    assert "shows parts of images (patches, frames or clips); go back to whole images" in said


def test_videos_are_no_images() -> None:
    dataset = fo.Dataset()
    dataset.add_sample_field("label", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    dataset.media_type = "video"
    assert "holds videos; labels of whole images are checked" in form("find_label_issues", dataset)
    dataset.delete()


def test_a_dataset_without_any_label_field_says_so(noisy: Any) -> None:
    noisy.dataset.delete_sample_field("ground_truth")
    assert "has no label field; a Classification field" in form("find_label_issues", noisy.dataset)


def test_embeddings_and_a_backbone_are_one_too_many(noisy: Any) -> None:
    with_embeddings(noisy)
    params = {"embeddings_field": "embedding", "backbone": "torchvision:resnet18"}
    assert "heads are trained on one of them" in form("find_label_issues", noisy.dataset, params=params)
    [(variant, message)] = toasts(in_the_app("find_label_issues", noisy.dataset, params=params))
    assert (variant, "both given" in message) == ("error", True)


def test_one_file_with_two_labels_is_refused(noisy: Any) -> None:
    with_embeddings(noisy)
    first, second = noisy.ids[:2]
    other = noisy.dataset[second]
    other.filepath = noisy.dataset[first].filepath
    other.save()
    noisy.dataset.set_values("ground_truth.label", {first: "bar", second: "ring"}, key_field="id")
    with pytest.raises(ExecutionError, match=r"two samples show .*00000.png, one as 'bar', one as 'ring'"):
        execute("find_label_issues", noisy.dataset, params={"embeddings_field": "embedding"})


@pytest.mark.parametrize("name", WITH_A_RUN)
def test_what_has_changed_since_the_run_is_told_in_every_form(noisy: Any, name: str) -> None:
    imported(noisy)
    assert not [note for note in notes(name, noisy.dataset) if "Since the run" in note]
    relabelled = noisy.wrong_ids[-1]
    noisy.dataset.add_sample(noisy.dataset.first().copy())
    noisy.dataset.delete_samples(noisy.ids[1:3])
    noisy.dataset.set_values("ground_truth.label", {relabelled: "spiral"}, key_field="id")
    assert [note for note in notes(name, noisy.dataset) if "Since the run" in note] == [
        "Since the run, 1 sample was added and not checked.",
        "Since the run, 2 samples were removed.",
        "Since the run, 1 sample was relabelled elsewhere, after the suggestions were made.",
    ]


def test_what_the_plugin_itself_corrected_is_no_change_since_the_run(noisy: Any) -> None:
    imported(noisy)
    corrections.accept_suggestions(noisy.dataset, noisy.wrong_ids)
    corrections.undo_corrections(noisy.dataset, noisy.wrong_ids[:3])
    assert not [note for note in notes("export_corrected", noisy.dataset) if "Since the run" in note]


def test_an_export_to_a_taken_place_is_said_in_the_form(noisy: Any, tmp_path: Path) -> None:
    imported(noisy)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "out.corrections.csv").touch()
    for kind, to, said in (
        ("imagefolder", str(tmp_path / "full"), "is not empty"),
        ("csv", str(tmp_path / "out.csv"), "out.corrections.csv already exists"),
        ("dataset", noisy.dataset.name, "there is already a dataset"),
    ):
        assert said in form("export_corrected", noisy.dataset, params={"kind": kind, "to": to})
        [(variant, message)] = toasts(in_the_app("export_corrected", noisy.dataset, params={"kind": kind, "to": to}))
        assert (variant, said in message) == ("error", True)


def test_an_import_of_nothing_is_refused(noisy: Any, tmp_path: Path) -> None:
    assert "is not a run folder of cvcoteach" in form(
        "import_label_issues", noisy.dataset, params={"folder": str(tmp_path)}
    )
    [(variant, message)] = toasts(in_the_app("import_label_issues", noisy.dataset))
    assert (variant, "nothing to import" in message) == ("error", True)


def test_a_form_offers_the_target_and_every_label_field(noisy: Any) -> None:
    found = operator("find_label_issues").resolve_type(context(noisy.dataset), "inputs")
    assert "view_target" in found.type.properties
    assert "label_field" in properties("find_label_issues", noisy.dataset)


@pytest.mark.slow
def test_two_runs_of_the_same_at_once_are_refused(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cvcoteach.fiftyone.work import find as issues

    with_embeddings(noisy)
    run, told = issues._run, []
    options = {"params": {"embeddings_field": "embedding", "rounds": 1}}

    def twice(*arguments: Any) -> Any:
        if not told:
            told.extend([None, *toasts(in_the_app("find_label_issues", noisy.dataset, **options))])
        return run(*arguments)

    monkeypatch.setattr(issues, "_run", twice)
    execute("find_label_issues", noisy.dataset, **options)
    assert told[1:] == [("error", f"the same run of {noisy.dataset.name} is already under way; wait for it to end.")]
    assert runs.keys(noisy.dataset) == ["label_issues"]


@pytest.mark.slow
def test_a_key_taken_while_the_run_was_under_way_is_not_overwritten(
    noisy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cvcoteach.fiftyone.work import find as issues

    with_embeddings(noisy)
    run = issues._run

    def overtaken(*arguments: Any) -> Any:
        imported(noisy)
        return run(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(issues, "_run", overtaken)
        with pytest.raises(ExecutionError, match="there is already a run 'label_issues'"):
            execute("find_label_issues", noisy.dataset, params={"embeddings_field": "embedding", "rounds": 1})
    assert runs.load(noisy.dataset).config.source == "cleanlab"
    execute(  # under another key nothing is trained again
        "find_label_issues",
        noisy.dataset,
        params={"embeddings_field": "embedding", "rounds": 1, "brain_key": "other"},
    )
    assert set(runs.keys(noisy.dataset)) == {"label_issues", "other"}
