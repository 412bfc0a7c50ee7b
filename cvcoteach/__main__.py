"""`python -m cvcoteach` is `cvcoteach`."""

from cvcoteach.cli.main import main

main(prog_name="cvcoteach")
