"""semabench: does this token mixer hold up as images grow?"""

from semabench._version import __version__

__all__ = ["__version__"]
