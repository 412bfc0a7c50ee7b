from cvcoteach._working_folder import import_elsewhere
from cvcoteach.engines.own_code import import_what_is_told

import_elsewhere("torch")  # in workers of Ray, too
import_what_is_told()
