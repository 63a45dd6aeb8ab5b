"""Compatibility of schemas: whether what was written with one can be read with another, and why not.

Pure checks over parsed schemas, nothing of the platform below: `incompatibilities` holds two against each other,
`check` a new one against a subject's versions under one of the seven levels.
"""

from millstream.schemas.compat.checks import check, check_versions, incompatibilities, verbose_messages
from millstream.schemas.compat.incompatibility import Incompatibility
from millstream.schemas.compat.level import Level

__all__ = ["Incompatibility", "Level", "check", "check_versions", "incompatibilities", "verbose_messages"]
