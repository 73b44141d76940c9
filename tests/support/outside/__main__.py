"""`python -m tests.support.outside [KIND]...`: write the golden files anew, all or these."""

from __future__ import annotations

import sys

from tests.support.outside.golden import KINDS, refresh

for each in sys.argv[1:] or KINDS:
    refresh(each, KINDS[each]())
