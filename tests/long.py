"""The long version of the tests, which ``make hardship`` runs: more rounds of the same, larger blobs."""

from __future__ import annotations

import os

LONG = bool(os.environ.get("HARDSHIP_LONG"))
