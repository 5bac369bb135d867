"""Checks and measurements on a GPU: check.sh runs them all."""
