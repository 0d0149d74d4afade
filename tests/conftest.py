"""For all tests: Hypothesis without its clock, which a busy machine exceeds; bounds on time have tests of their own."""

from hypothesis import settings

settings.register_profile("no_clock", deadline=None)
settings.load_profile("no_clock")
