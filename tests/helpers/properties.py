"""How long property tests search: SHORT by default, LONG in those marked `fuzz`."""

from hypothesis import HealthCheck, settings

_CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]  # the fixtures hold no state

SHORT = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=_CHECKS)
LONG = settings(max_examples=3000, deadline=None, database=None, suppress_health_check=_CHECKS)
