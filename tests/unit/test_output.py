"""Lines that stay open are ended for a container's log; nothing else changes."""

from hypothesis import given
from hypothesis import strategies as st

from mlflow_runner.log.output import OPEN_LINE_S, Lines

PIECES = st.lists(
    st.tuples(st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"\n")), st.floats(0, 2)),
    max_size=20,
)


def shown(pieces):
    """All that is printed for pieces of output with a pause (s) after each; checks for an open line
    after each pause, as the thread does.
    """
    lines, now_s, result = Lines(), 0.0, b""
    for data, wait_s in pieces:
        result += lines.feed(data, now_s)
        now_s += wait_s
        result += lines.end_if_due(now_s)
    return result


@given(PIECES)
def test_only_line_ends_are_added_and_never_an_empty_line(pieces):
    text, result = b"".join(data for data, _ in pieces), shown(pieces)
    assert result.replace(b"\n", b"") == text.replace(b"\n", b"")
    assert result.count(b"\n\n") <= text.count(b"\n\n")


@given(
    st.lists(st.binary(max_size=20).map(lambda data: data + b"\n"), max_size=20), st.floats(0, 100)
)
def test_whole_lines_are_shown_as_they_are(lines, wait_s):
    assert shown([(line, wait_s) for line in lines]) == b"".join(lines)


def test_a_progress_bar_becomes_a_line_a_second():
    bar = [(b"\r%d%%" % percent, 0.25) for percent in range(12)]
    assert shown([*bar, (b"\n", 0)]) == b"\r0%\r1%\r2%\r3%\n\r4%\r5%\r6%\r7%\n\r8%\r9%\r10%\r11%\n"


def test_a_line_that_is_open_is_due_after_its_time_and_only_once():
    lines = Lines()
    assert lines.feed(b"password: ", 0.0) == b"password: "
    assert (
        lines.end_if_due(OPEN_LINE_S - 0.1),
        lines.end_if_due(OPEN_LINE_S),
        lines.end_if_due(2 * OPEN_LINE_S),
    ) == (b"", b"\n", b"")
    assert lines.left_s(5.0) is None
