"""Text: reading, vocabulary, corpus and batches."""

import math

import numpy as np
import pytest

from pyrnn import text
from pyrnn.app.charmodel import CharModel


def test_read_leaves_the_text_alone(tmp_path):
    content = "Ünïcode 漢字 \U0001f600\r\nnext\rlast\u2028\n\ufeff\0"
    (tmp_path / "x").write_bytes(content.encode())
    assert text.read(tmp_path / "x") == content
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert text.read(tmp_path / "x") == content
    (tmp_path / "y").write_bytes(b"")
    assert text.read_all([tmp_path / "x", tmp_path / "y", tmp_path / "x"]) == content * 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc\xe9def", "byte 0xe9 at position 3"),
        (b"\xef\xbb\xbfabc\xff", "byte 0xff at position 6"),
        ("abc".encode("utf-16"), "byte 0xff at position 0"),
        (b"\x7fELF\x02\x80", "byte 0x80 at position 5"),
        (b"\xed\xa0\x80", "byte 0xed at position 0"),  # a surrogate
        (b"cut \xe6\xbc", "byte 0xe6 at position 4"),
    ],
)
def test_read_refuses_what_is_not_utf8(tmp_path, data, message):
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match=f"x is not UTF-8 text: {message}"):
        text.read(tmp_path / "x")


def test_read_refuses_what_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a directory"):
        text.read(tmp_path)
    with pytest.raises(FileNotFoundError, match="none: no such file"):
        text.read(tmp_path / "none")


def test_language_reference():
    reference = text.read_all([])
    assert len(reference) > 300_000
    assert "assignment" in reference
    assert reference == text.language_reference()


def test_vocabulary_against_a_dict():
    content = "hello wörld\r\n漢字\U0001f600 hello"
    vocabulary = text.Vocabulary.of(content)
    expected = sorted(set(content))
    assert vocabulary.characters == "".join(expected)
    assert len(vocabulary) == len(expected)
    numbers = vocabulary.encode(content)
    assert numbers.tolist() == [expected.index(character) for character in content]
    assert vocabulary.decode(numbers) == content
    assert vocabulary.encode("").tolist() == []
    assert "漢" in vocabulary
    assert "x" not in vocabulary


def test_unknown_characters_are_named():
    vocabulary = text.Vocabulary.of("abc")
    with pytest.raises(ValueError, match=r"prompt: .*'Ж' \(U\+0416\) at position 2; its vocabulary has 3 characters"):
        vocabulary.encode("abЖcЖ", "prompt")
    with pytest.raises(ValueError, match=r"'\\udc80' \(U\+DC80\) at position 0"):  # a byte that is no UTF-8
        vocabulary.encode("\udc80", "prompt")
    with pytest.raises(ValueError, match=r"'h' \(U\+0068\) at position 0, .*'l' .*at position 4, and 4 more"):
        vocabulary.encode("hijklmnop")


@pytest.mark.parametrize("characters", ["", "ba", "aab"])
def test_vocabulary_refuses(characters):
    with pytest.raises(ValueError, match="Vocabulary"):
        text.Vocabulary(characters)


def test_marks_have_the_first_ids():
    vocabulary = text.Vocabulary.of("to be", marks=["end", "pad", "begin"])
    assert (vocabulary.marks, vocabulary.characters) == (("pad", "begin", "end"), " beot")
    assert (vocabulary.pad, vocabulary.unknown, vocabulary.begin, vocabulary.end) == (0, None, 1, 2)
    assert len(vocabulary) == 8
    ids = vocabulary.encode("toe", begin=True, end=True)
    assert (ids.tolist(), ids.dtype) == ([1, 7, 6, 5, 2], np.int64)
    assert vocabulary.encode("", begin=True).tolist() == [1]
    assert vocabulary.decode([*ids, 0, 0]) == "toe"
    with pytest.raises(ValueError, match="its vocabulary has 5 characters"):
        vocabulary.encode("x")


def test_unknown_characters_have_a_mark():
    vocabulary = text.Vocabulary("ab", ["unknown"])
    assert vocabulary.encode("abxa\udc80").tolist() == [1, 2, 0, 1, 0]
    assert vocabulary.decode([1, 0]) == "a\ufffd"
    assert "x" not in vocabulary
    with pytest.raises(ValueError, match=r"Vocabulary\.encode: end is True, and the vocabulary has no such mark"):
        vocabulary.encode("ab", end=True)
    with pytest.raises(TypeError, match=r"Vocabulary\.encode: begin is 'a', expected True or False"):
        vocabulary.encode("ab", begin="a")
    for marks in (["start"], "pad"):
        with pytest.raises(ValueError, match=r"Vocabulary: marks is '.*', expected one of pad, unknown, begin, end"):
            text.Vocabulary("ab", marks)
    with pytest.raises(ValueError, match="CharModel: the vocabulary has the marks unknown, expected none"):
        CharModel(vocabulary)


def test_corpus():
    content = "".join(chr(97 + k % 7) for k in range(99)) + "Ж"
    corpus = text.Corpus(content)
    assert corpus.vocabulary.decode(corpus.train) == content[:90]
    assert corpus.vocabulary.decode(corpus.valid) == content[90:]  # its last character is only there, and known
    assert corpus.digest != text.Corpus(content[1:]).digest
    for length in (0, 1, 19):
        with pytest.raises(ValueError, match=f"too short: {length} characters, at least 20"):
            text.Corpus("a" * length)
    assert len(text.Corpus("ab" * 10).valid) == 2


@pytest.mark.parametrize(
    ("length", "batch", "steps"), [(1000, 7, 64), (1000, 1, 10), (101, 100, 5), (129, 2, 64), (66, 1, 64)]
)
def test_batches_carry_on(length, batch, steps):
    """The columns of all batches, one after the other, are contiguous streams of the text; targets are one later."""
    numbers = np.arange(length, dtype=np.int32)
    batches = text.Batches(numbers, batch, steps)
    items = [batches[k] for k in range(len(batches))]
    inputs, targets = (np.concatenate(part) for part in zip(*items, strict=True))
    stream = (length - 1) // batch
    np.testing.assert_array_equal(inputs.T.ravel(), numbers[: stream * batch])
    np.testing.assert_array_equal(targets, inputs + 1)
    sizes = [item[0].shape for item in items]
    assert {columns for _, columns in sizes} == {batch}
    rows = [row for row, _ in sizes]
    assert max(rows) <= steps
    assert max(rows) - min(rows) <= 1
    assert len(batches) == math.ceil(stream / steps)
    assert batches.characters == inputs.size > length - 1 - batch


def test_batches_refuse_a_short_text():
    with pytest.raises(ValueError, match=r"too short: 32 characters .* a batch of 32 rows needs at least 33"):
        text.Batches(np.arange(32), 32, 64)
    assert len(text.Batches(np.arange(33), 32, 64)) == 1
    for arguments, error, match in [
        ((np.arange(33), 0, 5), ValueError, "Batches: batch is 0, expected at least 1"),
        ((np.arange(33), 2, 0), ValueError, "Batches: steps is 0, expected at least 1"),
        ((np.arange(33), 2.0, 5), TypeError, "Batches: batch is 2.0, expected an integer"),
        ((3, 2, 5), ValueError, r"Batches: ids has shape \(\), expected one axis"),
    ]:
        with pytest.raises(error, match=match):
            text.Batches(*arguments)


def test_fasta_is_read_by_names(tmp_path):
    (tmp_path / "x.fsa").write_text(">one the first\nACGT\nAC\n>two\n>three\nT\n")
    assert text.read_fasta(tmp_path / "x.fsa") == {"one": "ACGTAC", "two": "", "three": "T"}


def test_words_and_the_unknown():
    words = text.Words.of(["to", "be", "or", "not", "to", "be", "that", "is"], minimum=2, marks=["<end>"])
    assert words.words == ["<unknown>", "<end>", "be", "to"]
    assert words.encode(["to", "or", "be", "<end>"]).tolist() == [3, 0, 2, 1]
    assert words.decode([3, 0]) == ["to", "<unknown>"]
    assert "be" in words
    assert "or" not in words
    assert "<unknown>" not in words
    assert len(words) == 4
    assert text.Words.of(["a", "<end>"], marks=["<end>"]).words == ["<unknown>", "<end>", "a"]
    ids, lengths = words.batch([["to", "or", "be"], [], iter(["be"])])
    assert ids.T.tolist() == [[3, 0, 2], [0, 0, 0], [2, 0, 0]]
    assert lengths.tolist() == [3, 0, 1]


def test_what_is_no_text_is_told():
    known, words = text.Vocabulary("abc"), text.Words(["a"])
    for call, of in [
        ("Vocabulary: characters", text.Vocabulary),
        ("Vocabulary.of: text", text.Vocabulary.of),
        ("Vocabulary.encode: text", known.encode),
        ("Corpus: text", text.Corpus),
    ]:
        for value in (b"abc" * 20, 3, None, ["a", "b"] * 20, np.array(["a"])):
            with pytest.raises(TypeError, match=rf"^{call} is .*, expected a string") as caught:
                of(value)
            assert (".decode()" in str(caught.value)) == isinstance(value, bytes)
    for call, of in [
        ("Words: words", text.Words),
        ("Words.of: words", text.Words.of),
        ("Words.of: marks", lambda marks: text.Words.of("ab", marks=marks)),
        ("Words.encode: words", words.encode),
        ("Corpus: sources", lambda sources: text.Corpus("abc" * 20, sources)),
    ]:
        for value in (b"abc", 3, None):
            with pytest.raises(TypeError, match=rf"^{call} is .*, expected strings$"):
                of(value)
        for value, bad in [(["a", 3], "3"), (["a", ["b"]], r"\['b'\]"), (["a", b"b"], "b'b'")]:
            with pytest.raises(TypeError, match=rf"^{call}\[1\] is {bad}, expected a string$"):
                of(value)
    for value in (b"abc", "abc", 3, None):
        with pytest.raises(TypeError, match=r"^Words\.batch: sequences is .*, expected lists of words$"):
            words.batch(value)
    for minimum in (1.5, "2", None):
        with pytest.raises(TypeError, match=r"^Words\.of: minimum is .*, expected an integer"):
            text.Words.of("ab", minimum)
    for value in (b"a", 97, None, ["a"], "ab", ""):
        assert value not in known
        assert value not in words


def test_words_are_all_different():
    with pytest.raises(ValueError, match="'a' comes twice"):
        text.Words(["a", "b", "a"])
    with pytest.raises(ValueError, match="'<unknown>' comes twice"):
        text.Words(["<unknown>"])


@pytest.mark.parametrize("known", [text.Vocabulary("abc"), text.Words(["b", "c"])])
def test_only_numbers_that_exist_are_decoded(known):
    assert list(known.decode(np.arange(3, dtype="u1"))) == list(known.decode([0, 1, 2]))
    assert len(known.decode([])) == 0
    call = type(known).__name__
    for numbers, bad in [([-1], "-1"), ([0, 3], "3"), (np.array([1, -3]), "-3"), ([2**40], str(2**40))]:
        with pytest.raises(ValueError, match=rf"{call}.decode: ids holds {bad}, expected 0 to 2"):
            known.decode(numbers)
    with pytest.raises(TypeError, match=rf"{call}.decode: ids has dtype float64, expected integers"):
        known.decode([1.0])
    with pytest.raises(ValueError, match=rf"{call}.decode: ids has shape \(1, 2\), expected \(T,\)"):
        known.decode([[1, 2]])


def test_batches_are_a_sequence():
    batches = text.Batches(np.arange(100), 3, 10)
    for part, last in zip(batches[-1], batches[len(batches) - 1], strict=True):
        np.testing.assert_array_equal(part, last)
        assert part.size
    for k in (len(batches), -len(batches) - 1):
        with pytest.raises(IndexError):
            batches[k]


def test_fasta_as_it_comes(tmp_path):
    """A ">" inside a line is none of a record; white space, comments and blank lines are no bases."""
    path = tmp_path / "x.fsa"
    path.write_bytes(b"\n; about\n>s1 at >3m -> end\r\nAC GT\t\n;note\nAC\r\r>s2\n\n  GG > \n>  s3\tx\nT\x0bT")
    assert text.read_fasta(path) == {"s1": "ACGTAC", "s2": "GG>", "s3": "TT"}
    path.write_text(" >a\nAC\n\t>b\n  ;note\n GT\n\x0c> c\n")
    assert text.read_fasta(path) == {"a": "AC", "b": "GT", "c": ""}
    path.write_text("")
    assert text.read_fasta(path) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (">\nACGT\n", "line 1: there is no name"),
        (">a\nA\n>  \nACGT\n", "line 3: there is no name"),
        (">a\nA\n\n>b\nC\n>a again\nG\n", "line 6: the name 'a' came before"),
        (">a\nA\n  >a\nG\n", "line 3: the name 'a' came before"),
        (f">{'a' * 999}\nA\n>{'a' * 999}\n", "line 3: the name 'a{80}'... \\(999 characters\\) came before$"),
        (f"{'A' * 999}\n", "line 1: 'A{40}'... \\(999 characters\\) stands before the first name"),
        ("ACGT\n>a\nA\n", "line 1: 'ACGT' stands before the first name, expected '>'"),
    ],
)
def test_fasta_that_is_none(tmp_path, content, message):
    (tmp_path / "x.fsa").write_text(content)
    with pytest.raises(ValueError, match=f"x.fsa, {message}"):
        text.read_fasta(tmp_path / "x.fsa")


def test_lines_have_their_places(tmp_path):
    (tmp_path / "x").write_bytes("a\n\n \r\nb\u2028c\rd".encode())
    places = [(place.rpartition("/")[2], line) for place, line in text.lines(tmp_path / "x")]
    assert places == [("x, line 1", "a"), ("x, line 4", "b\u2028c"), ("x, line 5", "d")]
    (tmp_path / "x").write_bytes(b"a\nb\xe9")
    with pytest.raises(ValueError, match=r"byte 0xe9 at position 3, line 2 \("):
        list(text.lines(tmp_path / "x"))


def test_ids_are_int64():
    """As every op takes them: no copy at each step."""
    corpus = text.Corpus("the quick brown fox " * 3)
    inputs, targets = text.Batches(corpus.train, 2, 3)[0]
    words = text.Words(["a", "b"])
    for ids in (corpus.vocabulary.encode("e"), corpus.train, corpus.valid, inputs, targets, words.encode(["a"])):
        assert ids.dtype == np.int64
    assert words.batch([["a"], ["b", "a"]])[0].dtype == np.int64
