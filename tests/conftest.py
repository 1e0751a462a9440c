"""What all tests share."""

from hypothesis import settings

# No test is timed: on a busy machine an example may take a hundred times as long as the one before it.
settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")
