from tests.bed.fixtures import *  # noqa: F403
