"""semabench: does this token mixer hold up as images grow?

Importing it makes its models known to timm: ``timm.create_model("sema_tiny")``.
"""

from semabench import models
from semabench._version import __version__

__all__ = ["__version__", "models"]
