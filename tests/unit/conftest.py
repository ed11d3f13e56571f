"""How the unit tests search for inputs that nobody thinks of."""

from hypothesis import HealthCheck, settings

# No deadline for one example: on a busy machine it tells about the machine. Any failure found at random
# prints the input, which then becomes a test case of its own.
settings.register_profile("footfall", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("footfall")
