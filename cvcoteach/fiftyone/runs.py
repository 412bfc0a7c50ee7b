"""The names by which FiftyOne saves and finds our Brain runs. They stay here, wherever the code moves."""

from cvcoteach.fiftyone.store.runs import FindLabelIssues as FindLabelIssues
from cvcoteach.fiftyone.store.runs import FindLabelIssuesConfig as FindLabelIssuesConfig
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults as FindLabelIssuesResults
