"""Small wrong edits of the C++, each of which must turn the tests red (mutants.py lists them, __main__ runs them)."""
