"""Stand-in for the package of that name: what torch.testing._internal takes from it to be imported."""

import unittest

ACCEPT = False


class TestCase(unittest.TestCase):
    """torch derives its own from it."""
