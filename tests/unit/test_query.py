"""The query language, on resources and on lines."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vmtui.core.backtracking import explodes
from vmtui.core.errors import QueryError
from vmtui.core.lifecycle import Phase
from vmtui.core.query import KEYS, KINDS, LONGEST_QUERY, STATES, parse
from vmtui.core.resource import Address, Endpoint, Exit, Fact, Kind, Problem, Ref, Status
from vmtui.core.searchable import LONGEST, Entry

LOST = Problem(code="lost", message="the TAP is gone")


def entry(
    name: str,
    kind: Kind = Kind.CONTAINER,
    phase: Phase = Phase.RUNNING,
    *,
    profile: str = "dev",
    backend: str = "oci",
    address: str = "",
    labels: dict[str, str] | None = None,
    problems: tuple[Problem, ...] = (),
    code: int | None = None,
    fact: str = "",
) -> Entry:
    status = Status(
        ref=Ref(profile, kind, name),
        backend=backend,
        phase=phase,
        exit=None if code is None else Exit(code=code),
        addresses=(Address(network="lab", address=address),) if address else (),
        endpoints=(Endpoint(url=f"http://{address}:80"),) if address else (),
        facts=(Fact(name="image", value=fact),) if fact else (),
        problems=problems,
    )
    return Entry(status, labels or {})


ITEMS = [
    entry("web", address="10.88.0.2", labels={"tier": "front", "owner": "Ann"}, fact="docker://nginx:1.27"),
    entry("web-2", profile="ci", phase=Phase.STOPPED),
    entry("guest", Kind.VM, backend="qemu", address="10.88.0.3", problems=(LOST,)),
    entry("old", Kind.VM, Phase.PAUSED, backend="qemu"),
    entry("job", Kind.SANDBOX, Phase.EXITED, backend="wasm", code=0),
    entry("failed", Kind.SANDBOX, Phase.EXITED, backend="wasm", code=3),
    entry("lab", Kind.NETWORK, Phase.AVAILABLE, backend="tap", address="10.88.0.1"),
    entry("half", Kind.DISK, Phase.BROKEN, backend="qcow2"),
]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "web web-2 guest old job failed lab half"),
        ("   ", "web web-2 guest old job failed lab half"),
        ("kind:vm", "guest old"),
        ("kind:vm,disk", "guest old half"),
        ("kind:c", "web web-2"),
        ("KIND:vm", ""),
        ("state:running", "web guest"),
        ("state:exited", "job failed"),
        ("state:ex,pau", "old job failed"),
        ("state:problem", "guest failed half"),
        ("kind:vm state:problem", "guest"),
        ("kind:vm -state:problem", "old"),
        ("kind:vm !state:problem", "old"),
        ("profile:ci", "web-2"),
        ("profile:DEV name:web", "web"),
        ("name:web", "web"),
        ("name:web*", "web web-2"),
        ("name:?eb", "web"),
        ("name:[w]eb", ""),
        ("backend:qemu,tap", "guest old lab"),
        ("address:10.88.0.*", "web guest lab"),
        ("address:10.88.0.2", "web"),
        ("label:tier", "web"),
        ("label:tier=front", "web"),
        ("label:owner=ann", "web"),
        ("label:tier=back", ""),
        ("label:tier=*", "web"),
        ("label:nobody,tier=front", "web"),
        ("label:tier=", ""),
        ("nginx", "web"),
        ("NGINX", ""),
        ("NgINX|lab", "lab"),
        ("Ann", "web"),
        ("ANN", ""),
        ("TAP", "guest"),
        ("tap", "guest lab"),
        (r"\Wnginx", "web"),
        ("^web$", "web"),
        ("^web", "web web-2"),
        ("-web kind:container", ""),
        ("container -ci/", "web"),
        ("10.88.0.2:80", "web"),
        ("http://10", "web guest lab"),
        (r"nginx\:1", "web"),
        ("1:27", ""),
        ("exited", "job failed"),
        ("dev/vm/", "guest old"),
        ("!kind:vm", "web web-2 job failed lab half"),
        ("!kind:vm state:problem", "web web-2 old job failed lab half"),
        ("! web", "guest old job failed lab half"),
        ("!!web", "web web-2"),
        ("  !web", "guest old job failed lab half"),
        ("!", "web web-2 guest old job failed lab half"),
        ("-f", "web web-2 guest old job failed lab half"),
        ("-", "web-2"),
        ("-f wb2", "web-2"),
        ("-f dcwb -2", "web"),
        ("-f kind:vm g", "guest"),
        ("!-f dcwb", "web-2 guest old job failed lab half"),
        ("error: x", ""),
    ],
)
def test_what_a_query_means(text: str, names: str) -> None:
    query = parse(text)
    assert [item.name for item in query.select(ITEMS)] == names.split()
    assert [item for item in ITEMS if query.matches(item)] == sorted(query.select(ITEMS), key=ITEMS.index)


def test_a_query_that_restricts_nothing_is_false() -> None:
    assert not any(parse(text) for text in ("", " ", "!", "-f", "! "))
    assert all(parse(text) for text in ("x", "!x", "-f x", "kind:vm", "-"))


def test_a_fuzzy_query_puts_the_best_first() -> None:
    items = [entry("w-e-b-x"), entry("wide-beb"), entry("web"), entry("browse-web")]
    query = parse("-f web")
    assert query.ranked
    assert [item.name for item in query.select(items)] == ["web", "browse-web", "w-e-b-x", "wide-beb"]
    assert query.score(items[2]) > query.score(items[0]) > 0
    assert parse("web").score(items[0]) == 0


@pytest.mark.parametrize(
    ("text", "position", "message", "hint"),
    [
        ("kidn:vm", 0, "there is no key 'kidn'", "did you mean kind:vm?"),
        ("web -kidn:vm", 5, "there is no key 'kidn'", "did you mean kind:vm?"),
        ("!kidn:vm", 1, "there is no key", "kind:vm"),
        ("level:error", 0, "there is no key 'level'", r"for the text itself write level\:error"),
        ("kind:", 5, "a value is missing after kind:", "vm, container"),
        ("kind:,", 5, "a value is missing", ""),
        ("x state:runing", 8, "there is no state 'runing'", "did you mean state:running?"),
        ("kind:house", 5, "there is no kind 'house'", "known: network, disk"),
        ("web (", 4, "not a regular expression: missing ), unterminated subpattern", r"\("),
        ("a[", 1, "not a regular expression", r"a\["),
        ("x{2,1}", 2, "not a regular expression", ""),
        ("x{99999999999}", 0, "not a regular expression", ""),
        ("(a+)+b", 0, "a loop in a loop", "a+"),
        ("x" * (LONGEST_QUERY + 1), LONGEST_QUERY, "at most", ""),
    ],
)
def test_a_wrong_query_says_where_and_what_to_write(text: str, position: int, message: str, hint: str) -> None:
    with pytest.raises(QueryError) as raised:
        parse(text)
    assert raised.value.position == position
    assert message in str(raised.value)
    assert hint in raised.value.hint


@pytest.mark.parametrize("text", ["12:30:01", "10.88:80", "[::1]", "web:8080", "std::x", "error:", "Error:x", "a.b:c"])
def test_what_could_be_no_key_is_text(text: str) -> None:
    assert parse(text).lines(None)(f"at {text} it was")


def test_lines_of_a_log() -> None:
    web, guest = ITEMS[0], ITEMS[2]
    keep = parse("kind:vm error -debug").lines(guest)
    assert keep("an ERROR here")
    assert not keep("an error in debug")
    assert not parse("kind:vm error").lines(web)("an error")
    assert parse("!error").lines(web)("all is well")
    assert not parse("!kind:vm error").lines(guest)("an error")
    assert parse("!kind:vm error").lines(web)("an error")
    assert parse("-error").lines(None)("all is well")
    assert parse("kind:vm").lines(guest)("anything")
    assert not parse("kind:vm").lines(None)("anything")
    assert parse("").lines(None)("anything")


@pytest.mark.parametrize(
    ("text", "line", "spans"),
    [
        ("b", "abcB", [(1, 2), (3, 4)]),
        ("B", "abcB", [(3, 4)]),
        ("b+ c", "abbcb", [(1, 5)]),
        ("ab bc", "abc", [(0, 3)]),
        ("-a b", "ab", [(1, 2)]),
        ("!b", "ab", []),
        ("-f ac", "abc", [(0, 1), (2, 3)]),
        ("x*", "ab", []),
        ("i", "İ.i", [(0, 1), (2, 3)]),  # the first letter is two in lower case
        ("kind:vm a", "a", [(0, 1)]),
    ],
)
def test_what_is_marked_as_found(text: str, line: str, spans: list[tuple[int, int]]) -> None:
    assert parse(text).spans(line) == spans


FRAGMENTS = st.sampled_from(
    [
        "kind:", "state:", "label:a", "=", ",", "vm", "running", "!", "-", "-f ", " ", "(", ")", "[", "]", "*", "+",
        "?", "{1,2}", "|", "\\", "\\d", "(?i)", "(?x)", "(?P<a>", "(?=", "(?<=", "(?(1)", "\\1", "^", "$", ".",
        "a", "B", "1:80",
    ]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=40), st.lists(FRAGMENTS, max_size=14).map("".join))


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, line=st.text(max_size=30))
@example(text="(?i:a)(?<!b)[[a]--b]", line="a")
@example(text="(" * 400, line="a")
@example(text="(?:" * 300 + ")*" * 300, line="a")
def test_a_query_is_parsed_or_refused(text: str, line: str) -> None:
    refused: QueryError | None = None
    try:
        query = parse(text)
    except QueryError as error:
        refused = error
    if refused is not None:
        assert 0 <= refused.position <= len(text)
        assert str(refused)
        return
    found = query.select(ITEMS)
    assert set(map(id, found)) == {id(item) for item in ITEMS if query.matches(item)}
    query.lines(None)(line)
    assert all(0 <= start < end <= len(line) for start, end in query.spans(line))


LETTERS = st.text(alphabet="abcABC019-_/é", min_size=1, max_size=6).filter(lambda word: word[0] not in "-!")


@settings(deadline=None)
@given(words=st.lists(LETTERS, min_size=1, max_size=3), line=st.text(alphabet="abcABC019-_/é ", max_size=60))
def test_literal_words_are_found_as_one_expects(words: list[str], line: str) -> None:
    def naive(word: str) -> bool:
        return word in (line if word != word.lower() else line.lower())

    item = entry("x", fact=line)
    assert parse(" ".join(words)).lines(None)(line) == all(map(naive, words))
    assert parse("!" + " ".join(words)).lines(None)(line) != all(map(naive, words))
    if all(map(naive, words)):
        assert parse(" ".join(words)).matches(item)


@settings(deadline=None)
@given(word=LETTERS, line=st.text(alphabet="abcABC019-_/é", max_size=60))
def test_a_pattern_and_its_literal_find_the_same(word: str, line: str) -> None:
    pattern = parse(f"(?:{re.escape(word)})")
    assert pattern.lines(None)(line) == parse(word).lines(None)(line)
    assert pattern.spans(line) == parse(word).spans(line)


@settings(deadline=None)
@given(word=st.text(alphabet="ab-", min_size=1, max_size=4), line=st.text(alphabet="ab-", max_size=12))
def test_fuzzy_finds_every_subsequence(word: str, line: str) -> None:
    query = parse(f"-f x{word}")
    rest = iter("x" + line)
    expected = all(letter in rest for letter in f"x{word}")
    assert query.lines(None)("x" + line) is expected
    places = query.spans("x" + line)
    letters = "".join(("x" + line)[start:end] for start, end in places)
    assert letters == (f"x{word}" if expected else "")


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+b", r"(\w+\s?)*$", r"(a|aa)+$", r"(.*,)*x", r"(foo.*)+", r"([a-zA-Z]+)*\d", r"(a?a?)*b", r"(x+x+)+y",
        r"((a*)*)*", r"(a|b|ab)*c", r"(?:a{1,50}){1,50}b", r"(a)(\1|a)*$", r"(?>x)(?:(?:b|b)+)+c",
    ],
)  # fmt: skip
def test_patterns_without_an_end_are_refused(pattern: str) -> None:
    re.compile(pattern)
    assert explodes(pattern)
    with pytest.raises(QueryError, match="forever"):
        parse(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"a.*b.*c", r"(\d+\.)+\d+", r"(\d{1,3}\.){3}\d{1,3}", r"(\w+\s)*x", r"(foo|far|bar)+", r"(https?://)+",
        r"([^,]*,)+", r"error|warn", r"(\"|')\w+\1", r"^web-\d+$", r"(a+b?){2}", r"(?>a+)+b", r"(?:a++)+b", r"(a|b)+c",
    ],
)  # fmt: skip
def test_patterns_that_end_are_taken(pattern: str) -> None:
    assert not explodes(pattern)
    began = time.thread_time()
    parse(pattern).lines(None)("a" * 30 + "1." * 30 + "!")
    assert time.thread_time() - began < 1


def test_a_pattern_looks_at_a_bounded_text() -> None:
    long = "a" * LONGEST + "zz"
    assert parse("zz").lines(None)(long)
    assert not parse("z+").lines(None)(long)
    assert len(entry("x", fact=long).text) == LONGEST


def test_the_keys_are_described() -> None:
    for key in KEYS:
        with pytest.raises(QueryError):
            parse(f"{key}:")
    assert {"running", "exited", "problem"} <= set(STATES)
    assert set(KINDS) == set(Kind)
