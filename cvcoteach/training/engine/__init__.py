"""How steps of a training are run: as Python says them one by one, or captured once and replayed."""
