"""`python -m cvcoteach` is `cvcoteach`."""

from cvcoteach.cli import main

main(prog_name="cvcoteach")
