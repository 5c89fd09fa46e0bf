"""The spool: every reader gets every byte in order, or the number of bytes that it missed."""

import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_runner.log.spool import Chunk, SpoolReader, SpoolWriter


def drain(reader, limit):
    """All available bytes, and the number of lost ones."""
    data, lost = b"", 0
    while (chunk := reader.peek(limit)).data:
        data, lost = data + chunk.data, lost + chunk.lost
        reader.advance(chunk, len(chunk.data))
    return data, lost


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 16), st.integers(1, 50))
def test_a_reader_within_the_capacity_gets_every_byte_in_order(
    tmp_path_factory, blocks, segment, limit
):
    directory = tmp_path_factory.mktemp("spool")
    writer, reader, read = SpoolWriter(directory, 10_000, segment), SpoolReader(directory), b""
    for block in blocks:
        writer.append(block)
        data, lost = drain(reader, limit)
        read += data
        assert lost == 0
    assert read == b"".join(blocks) and reader.offset == writer.end


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=30), st.integers(4, 60))
def test_a_late_reader_gets_the_newest_bytes_and_the_count_of_those_it_missed(
    tmp_path_factory, blocks, capacity
):
    directory = tmp_path_factory.mktemp("spool")
    writer = SpoolWriter(directory, capacity, segment_bytes=8)
    for block in blocks:
        writer.append(block)
    everything = b"".join(blocks)
    data, lost = drain(SpoolReader(directory), 1000)
    assert everything.endswith(data) and lost + len(data) == len(everything)
    assert sum(path.stat().st_size for path in directory.iterdir()) <= max(capacity, 16) + 8


def test_peeking_does_not_move_and_part_of_a_chunk_can_be_counted(tmp_path):
    SpoolWriter(tmp_path, 100).append(b"one\ntwo")
    reader = SpoolReader(tmp_path)
    assert reader.peek(100) == reader.peek(100)
    reader.advance(reader.peek(100), 4)
    assert reader.peek(100).data == b"two"


@pytest.mark.parametrize("offset", [0, 5])
def test_an_empty_spool_has_nothing_and_loses_nothing(tmp_path, offset):
    assert SpoolReader(tmp_path, offset).peek(10) == Chunk(offset, b"", 0)


def test_bytes_that_a_full_disk_did_not_take_are_a_gap_for_readers(tmp_path):
    """A limit on the size of files has the effect of a full disk: an OSError from the same call."""
    writer, reader = SpoolWriter(tmp_path, 10_000, segment_bytes=1000), SpoolReader(tmp_path)
    writer.append(b"a" * 100)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, hard))
    try:
        writer.append(b"b" * 300)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    writer.append(b"c" * 100)
    first = reader.peek(1000)
    assert (first.data, first.lost, first.closed) == (b"a" * 100 + b"b" * 50, 0, True)
    reader.advance(first, len(first.data))
    assert reader.peek(1000) == Chunk(400, b"c" * 100, 250)
