"""PESTO services, their contract, and pipelines over whole scenes.

The public names stand in `__init__.pyi` and load on first use (Scientific Python's SPEC 1):
importing the package loads nothing else.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
