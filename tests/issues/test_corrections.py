"""What a person decided, read from a CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.issues.corrections import Judged, correct

PATHS = ("a/0.png", "a/1.png", "b/2.png", "b/3.png")


def corrected(tmp_path: Path, text: str):
    file = tmp_path / "corrections.csv"
    file.write_text(text)
    labels, suggested = np.array([0, 0, 1, 1]), np.array([1, 1, 0, 0])
    selected, candidate = np.array([True, False, False, True]), np.array([False, True, False, False])
    return correct(file, Judged(PATHS, Path("/data"), labels, suggested, ("cat", "dog")), selected, candidate)


def test_a_reviewed_label_is_clean_and_an_excluded_image_is_gone(tmp_path: Path) -> None:
    text = "path,action,label\na/0.png,excluded,\na/1.png,accepted,\nb/2.png,kept,\n/data/b/3.png,set,cat\n"
    result = corrected(tmp_path, text)
    assert result.labels.tolist() == [0, 1, 1, 0]
    assert result.selected.tolist() == [False, True, True, True]
    assert not result.candidate.any()
    assert result.excluded.tolist() == [True, False, False, False]
    assert result.reviewed.tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    "text", ["path;action;label\na/0.png;set;dog\n", "sep=;\npath;action;label\na/0.png;set;dog\n"]
)
def test_a_spreadsheet_may_write_semicolons(tmp_path: Path, text: str) -> None:
    assert corrected(tmp_path, "\ufeff" + text).labels.tolist() == [1, 0, 1, 1]


def test_a_later_correction_overrules_an_earlier_one_and_none_takes_it_back(tmp_path: Path) -> None:
    text = "path,action,label\na/0.png,excluded,\na/0.png,set,dog\na/1.png,excluded,\na/1.png,unreviewed,\n"
    result = corrected(tmp_path, text)
    assert result.labels.tolist() == [1, 0, 1, 1]
    assert not result.excluded.any()
    assert result.candidate.tolist() == [False, True, False, False]


def test_the_plugins_record_of_corrections_is_read_as_it_is(tmp_path: Path) -> None:
    head = "when,who,key,action,what,sample_id,filepath,old,new,old_review,new_review\n"
    result = corrected(tmp_path, head + "now,me,k,65f,set,1,/data/b/2.png,dog,cat,unreviewed,set\n")
    assert result.labels.tolist() == [0, 0, 0, 1]
    assert result.selected.tolist() == [True, False, True, True]


def test_what_is_decided_of_a_path_holds_wherever_it_comes(tmp_path: Path) -> None:
    file = tmp_path / "corrections.csv"
    labels, suggested, nothing = np.array([0, 1, 1]), np.array([1, 0, 1]), np.zeros(3, bool)

    def corrected_twice(decision: str):
        file.write_text(f"path,action,label\na,{decision}\n")
        return correct(file, Judged(("a", "b", "a"), tmp_path, labels, suggested, ("cat", "dog")), ~nothing, nothing)

    assert corrected_twice("excluded,").excluded.tolist() == [True, False, True]
    assert corrected_twice("set,cat").labels.tolist() == [0, 1, 0]
    assert corrected_twice("accepted,").labels.tolist() == [1, 1, 1]
    suggested = np.array([1, 0, 0])  # the same image, judged by other models
    with pytest.raises(InputError, match="line 2: a comes twice in the run and would be cat and dog; say which"):
        corrected_twice("accepted,")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,action\nc/9.png,kept\n", "line 2: c/9.png is not an image of the run"),
        ("path,action\na/0.png,keep\n", "line 2: the action is 'keep'; did you mean kept"),
        ("path,action\na/0.png,relabel\n", "line 2: the action is 'relabel'; did you mean accepted, .*kept"),
        ("path,action,label\na/0.png,set,dgo\n", "line 2: 'dgo' is not a class of the run; did you mean dog"),
        ("path,action,label\na/0.png,set,\n", "line 2: the label is missing"),
        ("file,what\na/0.png,kept\n", "has the columns file, what; it takes path, action"),
        ("", "is empty; it takes a header"),
    ],
)
def test_corrections_that_do_not_fit_are_told_with_their_line(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        corrected(tmp_path, text)


@pytest.mark.parametrize("action", ["set", "accepted"])
def test_an_image_that_was_moved_as_decided_is_known_by_its_name(tmp_path: Path, action: str) -> None:
    result = corrected(tmp_path, f"path,action,label\na/0.png,kept,\na/3.png,{action},dog\n")  # it is in b now
    assert result.labels.tolist() == [0, 0, 1, 1]
    assert result.reviewed.tolist() == [True, False, False, True]
    for otherwise in ("a/3.png,set,cat", "a/3.png,accepted,", "a/3.png,kept,", "a/3.png,set,dog\nc/3.png,set,dog"):
        with pytest.raises(InputError, match=r"line 3: a/3\.png is not an image of the run"):
            corrected(tmp_path, f"path,action,label\na/0.png,kept,\n{otherwise}\n")


def test_an_image_that_is_excluded_may_be_gone_but_not_all(tmp_path: Path) -> None:
    result = corrected(tmp_path, "path,action\na/9.png,excluded\na/0.png,excluded\n")
    assert result.excluded.tolist() == [True, False, False, False]
    with pytest.raises(InputError, match=r"line 2: a/9\.png is not an image of the run"):
        corrected(tmp_path, "path,action\na/9.png,excluded\n")
