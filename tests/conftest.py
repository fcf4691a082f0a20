"""Hypothesis profiles: `default` and `ci` for every run, `soak` (HYPOTHESIS_PROFILE=soak) to search for longer."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Examples are whole ledgers: their time says nothing of a fault, and the first of them is large.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]

settings.register_profile("default", max_examples=60, deadline=None, derandomize=False, suppress_health_check=_SLOW)
settings.register_profile("ci", settings.get_profile("default"))
settings.register_profile("soak", settings.get_profile("default"), max_examples=3_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
