"""How tests draw that make a topic, or more, of each example: few of them at a time, and many in the soak."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings


def drawn(examples: int, soaked: int) -> settings:
    """The settings of such a test: so many examples, `soaked` in the soak.

    None that fails is made smaller: hundreds are tried for that, each with a topic of its own.
    """
    return settings(
        max_examples=soaked if os.environ.get("MILLSTREAM_SOAK") == "1" else examples,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
