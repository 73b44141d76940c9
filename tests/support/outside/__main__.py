"""`python -m tests.support.outside [KIND]...`: write the golden files anew, all or these.

Products whose bytes changed are refused until `PRODUCT_FORMAT` is counted up. Where only the frozen
processes or scenes changed, delete `products.json` first.
"""

from __future__ import annotations

import sys

from tests.support.outside.golden import KINDS, refresh

for each in sys.argv[1:] or KINDS:
    refresh(each, KINDS[each]())
