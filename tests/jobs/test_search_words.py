"""Words of a text: folding, queries, and where a text has what was looked for."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.search_words import HIT_CHARACTERS, MAX_CHARACTERS, Term, fold, hit, terms_of


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Budget for March.", " budget for march "),
        ("Das Budget für MÄRZ", " das budget fur marz "),
        ("Ma\u0308rz, straße, ﬁn", " marz strasse fin "),
        ("don't O’Brien's", " don t o brien s "),
        ("e-mail a_b 12.5%", " e mail a b 12 5 "),
        ("Ελλάδα Ёлка İstanbul", " ελλαδα елка istanbul "),
        ("会議は10時", " 会 議 は 10 時 "),
        ("हिन्दी 한국어 co\u00adop", " हिन्दी 한국어 coop "),
        ("… — !", " "),
        ("", " "),
    ],
)
def test_a_text_is_folded(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_a_very_long_word_is_cut_and_so_is_a_very_long_text() -> None:
    assert fold("x" * 5000) == f" {'x' * 100} "
    long = fold("word " * MAX_CHARACTERS)
    assert MAX_CHARACTERS - 5 <= len(long) <= MAX_CHARACTERS
    assert set(long.split()) == {"word"}
    assert long.endswith(" ")


@given(st.text(max_size=60))
def test_a_folded_text_is_single_words_of_letters_and_folds_to_itself(text: str) -> None:
    folded = fold(text)
    assert folded.startswith(" ")
    assert folded.endswith(" ")
    assert "  " not in folded
    assert all(c == " " or c.isalnum() or unicodedata.category(c)[0] in "LMN" for c in folded)
    assert fold(folded) == folded


def one(*found: str, excluded: bool = False, goes_on: bool = False) -> Term:
    return Term(words=found, excluded=excluded, is_beginning=goes_on)


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("Budget mär", [one("budget"), one("mar", goes_on=True)]),
        ("budget m", [one("budget"), one("m")]),
        ('budget "mar"', [one("budget"), one("mar")]),
        ('"the budget" -march', [one("the", "budget"), one("march", excluded=True)]),
        ('-"the budget" x1', [one("the", "budget", excluded=True), one("x1", goes_on=True)]),
        ("don't", [one("don", "t")]),
        ("e-mail", [one("e", "mail", goes_on=True)]),
        ("会議", [one("会", "議")]),
        ('"not closed', [one("not", "closed")]),
        ("a & b | (c:*) %_\\' --", [one("a"), one("b"), one("c")]),
    ],
)
def test_a_query_asks_for_terms(query: str, terms: list[Term]) -> None:
    assert terms_of(query) == terms


@pytest.mark.parametrize("query", ["-march", "***", '""', "-", '-"a b" -c', "'"])
def test_a_query_that_names_nothing_to_be_found_finds_nothing(query: str) -> None:
    assert terms_of(query) == []


def shown(text: str, query: str) -> tuple[str, list[str]]:
    found = hit(text, terms_of(query))
    return found["text"], [found["text"][first:last] for first, last in found["spans"]]


def test_a_hit_shows_a_short_text_whole_with_every_place() -> None:
    text = "The budget for March, das Budget für März: the budgets."
    assert shown(text, "budget") == (text, ["budget", "Budget", "budgets"])
    assert shown(text, '"budget"') == (text, ["budget", "Budget"])
    assert shown(text, '"budget fur" -june') == (text, ["Budget für"])


@pytest.mark.parametrize(
    ("text", "query", "found"),
    [
        ("Ma\u0308rz!", "marz", "Ma\u0308rz"),
        ("die Straße dort", "strass", "Straße"),
        ("die ﬁne Art", "fine", "ﬁne"),
        ("I don’t know", "don't", "don’t"),
        ("今日の会議です", "会議", "会議"),
        ("line one\nline two", '"one line"', "one line"),
    ],
)
def test_a_place_is_that_of_the_text_as_it_is(text: str, query: str, found: str) -> None:
    assert shown(text, query)[1] == [found]


def test_a_hit_shows_what_is_around_the_first_place() -> None:
    text = "many words before it " * 20 + "the budget for March " + "and many after " * 40
    found, places = shown(text, "budget")
    assert places == ["budget"]
    assert found.startswith("… ")
    assert found.endswith(" …")
    assert "the budget for March and many" in found
    assert len(found) <= HIT_CHARACTERS
    assert found[2:-2] in text


def test_a_text_without_a_space_is_shown_in_part() -> None:
    found, places = shown("会" * 500 + "議論" + "会" * 500, "議論")
    assert places == ["議論"]
    assert len(found) <= HIT_CHARACTERS


def test_a_text_that_does_not_match_is_shown_from_its_beginning() -> None:
    assert hit("other words", terms_of("budget")) == {"text": "other words", "spans": []}


@given(st.text("ab -é会\u0308\n", max_size=500), st.text('ab "-é会', min_size=1, max_size=8))
def test_every_hit_is_short_and_every_place_is_within_it(text: str, query: str) -> None:
    terms = terms_of(query)
    found = hit(text, terms)
    assert len(found["text"]) <= HIT_CHARACTERS
    ends = [end for span in found["spans"] for end in span]
    assert ends == sorted(ends)
    assert all(0 <= end <= len(found["text"]) for end in ends)
    matches = any(term.part in fold(text) for term in terms if not term.excluded)
    assert bool(found["spans"]) == matches
