"""Find, browse, correct and retrain inside FiftyOne. Needs `pip install "cvcoteach[fiftyone]"`.

`work` holds functions on a dataset or view that need no App (`find`, `imports`, `browse`, `corrections`, `retrain`,
`export`), `app` the operators and the panel that call them, and `store` what they keep in FiftyOne's database.
"""
