from tests.bed.fixtures import *  # noqa: F403
from tests.faults.fixtures import *  # noqa: F403


def pytest_addoption(parser):
    parser.addoption(
        "--faults-table",
        metavar="FILE",
        help="Where tests/faults write the table of what they saw.",
    )
