"""Bounded runs: a fixed number of examples, no deadline, nothing kept between runs."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "bounded",
    max_examples=150,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("bounded")
