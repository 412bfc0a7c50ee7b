from cvcoteach.engines.own_code import import_what_is_told

import_what_is_told()
