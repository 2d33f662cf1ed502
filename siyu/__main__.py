"""``python -m siyu``: the command line without an installed script."""

from siyu.cli import app

app(prog_name="siyu")
