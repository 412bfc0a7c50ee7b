"""`--help` in groups: the options that most people need first, then the others by what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

FIRST = "What most people need"

_SUBJECTS = {
    "Source": "source path_column label_column path_pattern split split_column group_column annotator_column "
    "annotator_columns format max_megapixels max_unpacked corrections ignore_labels",
    "Model": "backbone features also_from_scratch preset model weights head finetune epochs learning_rate image_size "
    "flip patience exports trusted",
    "Method": "action mode select n_rounds n_folds remove_ratio bind_near_copies noise_rate flag_for "
    "min_probability allow_empty_classes held_out test_split test_format recheck seed",
    "Machine": "device threads precision deterministic engine ray_address task_gpus workers_per_fold cache_dir",
    "Output": "output write undo again as_json quiet",
}
"""Options by name, as the commands share them; those of no group here come last."""

_OTHER = "Other options"
_WIDEST = 30


class Grouped(click.Command):
    """A command with many options."""

    def __init__(self, *args: Any, first: Sequence[str] = (), **kwargs: Any) -> None:
        """Take what click takes, and the names of the options to show first."""
        super().__init__(*args, **kwargs)
        self._first = first

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group; an option is in one of them."""
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in (FIRST, *_SUBJECTS, _OTHER)}
        title_of = {name: title for title, names in _SUBJECTS.items() for name in names.split()}
        title_of |= dict.fromkeys(self._first, FIRST)
        if (about := self.get_help_option(ctx)) is not None:
            title_of[about.name or ""] = "Output"
        place = {name: i for i, name in enumerate(self._first)}
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        for option in sorted(options, key=lambda option: place.get(option.name or "", len(place))):
            record = option.get_help_record(ctx)
            if record is not None:
                groups[title_of.get(option.name or "", _OTHER)].append(record)
        # one width for all groups, so that their texts stand in one column
        width = min(max(len(names) for rows in groups.values() for names, _ in rows), _WIDEST)
        for title, rows in groups.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(names.ljust(width), text) for names, text in rows], col_max=_WIDEST)
