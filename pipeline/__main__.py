"""`python -m pipeline` is the `pipeline` command."""

from pipeline.cli.entry import main

main()
