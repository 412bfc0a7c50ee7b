"""Find, browse, correct and retrain inside FiftyOne. Needs `pip install "cvcoteach[fiftyone]"`.

The functions of `issues`, `imports`, `corrections`, `browse`, `retrain` and `export` work on a dataset or view and need
no App; `operators` and `panel` are the App's doors to them.
"""
