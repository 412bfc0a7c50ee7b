"""Writers: a source under other labels, without some images -> a copy in its own format. One module per format."""

from __future__ import annotations

from cvcoteach.data.writers.copy import Copy as Copy
from cvcoteach.data.writers.registry import check_destination as check_destination
from cvcoteach.data.writers.registry import fingerprint as fingerprint
from cvcoteach.data.writers.registry import is_copy as is_copy
from cvcoteach.data.writers.registry import names_in_copy as names_in_copy
from cvcoteach.data.writers.registry import replace_copy as replace_copy
from cvcoteach.data.writers.registry import write_copy as write_copy
