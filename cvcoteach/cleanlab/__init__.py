"""cleanlab's doors to our flags: `find_label_issues`, Datalab, `CleanLearning`."""

import importlib
import warnings

with warnings.catch_warnings():  # Datalab, where installed, silences all warnings of the program that imports cleanlab
    importlib.import_module("cleanlab")
