"""`python -m chainrule`: the command line, where its script is not on the path."""

from chainrule.cli import main

main(prog_name="python -m chainrule")
