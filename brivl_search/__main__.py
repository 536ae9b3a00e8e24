"""`python -m brivl_search`."""

from brivl_search.cli import main

main()
