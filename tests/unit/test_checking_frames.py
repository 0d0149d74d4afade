"""What server and judging process say to each other arrives whole, however the bytes are cut."""

from hypothesis import given
from hypothesis import strategies as st

from control_plane.checking import frames
from control_plane.core.compose import ComposeFile, passed_file
from control_plane.core.errors import FieldProblem, InvalidComposeFileError

files = st.tuples(st.binary(max_size=300), st.from_regex(r"[a-z0-9_-]{1,63}", fullmatch=True))
texts = st.text(st.characters(codec="utf-8"), max_size=40)
places = st.none() | st.integers(min_value=1, max_value=10**6)
problems = st.builds(FieldProblem, texts, texts, places, places)


def cut(stream: bytes, data: st.DataObject) -> list[bytes]:
    """Return the stream in pieces, cut anywhere."""
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return [stream[start:end] for start, end in zip([0, *places], [*places, len(stream)], strict=True)]


@given(st.lists(files, max_size=5), st.data())
def test_requests_arrive_in_order_and_whole(sent: list[tuple[bytes, str]], data: st.DataObject) -> None:
    stream = b"".join(frames.request(source, name) for source, name in sent)
    buffer = bytearray()
    taken: list[tuple[bytes, str]] = []
    for piece in cut(stream, data):
        buffer += piece
        taken += frames.take_requests(buffer)
    assert taken == sent
    assert not buffer


@given(st.binary(max_size=300), st.lists(texts, max_size=3), st.data())
def test_a_file_that_passed_comes_back_with_its_warnings(source: bytes, said: list[str], data: st.DataObject) -> None:
    file = passed_file(source, tuple(said))
    assert verdicts(frames.passed(file), source, data) == [file]


@given(texts, st.lists(problems, min_size=1, max_size=10), st.data())
def test_a_refusal_comes_back_with_every_problem(detail: str, found: list[FieldProblem], data: st.DataObject) -> None:
    (verdict,) = verdicts(frames.refused(InvalidComposeFileError(detail, found)), b"", data)
    assert isinstance(verdict, InvalidComposeFileError)
    assert (verdict.detail, verdict.fields) == (detail, tuple(found))


@given(st.data())
def test_a_fault_of_the_judge_is_no_fault_of_the_file(data: st.DataObject) -> None:
    (verdict,) = verdicts(frames.crashed(ZeroDivisionError("by zero")), b"", data)
    assert isinstance(verdict, RuntimeError)
    assert "ZeroDivisionError: by zero" in str(verdict)


def verdicts(stream: bytes, source: bytes, data: st.DataObject) -> list[ComposeFile | Exception]:
    buffer, taken = bytearray(), []
    for piece in cut(stream, data):
        buffer += piece
        taken += [frames.verdict_of(text, source) for text in frames.take_verdicts(buffer)]
    return taken
