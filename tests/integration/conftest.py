from tests.bed.fixtures import *  # noqa: F403
from tests.bed.people import admin, attempt, guarded  # noqa: F401
