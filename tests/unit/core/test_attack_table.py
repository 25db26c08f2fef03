"""The table of attacks: names are read right, and nothing is called covered that is not."""

from pathlib import Path

import pytest

from tests.attacks import LAST, TESTS, covered, layer_of, numbers_of, table


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("test_a17_the_examples", (17,)),
        ("test_a4_a6_an_equal_counter", (4, 6)),
        ("test_a17_the_examples[a5_x]", (17,)),
        ("test_a_key_alone", ()),
        ("test_about_a17_something", ()),
        ("helper_a17_x", ()),
    ],
)
def test_numbers_stand_at_the_beginning_of_a_name(name: str, numbers: tuple[int, ...]) -> None:
    assert numbers_of(name) == numbers


def test_a_layer_is_the_folder_and_for_unit_tests_the_package() -> None:
    assert layer_of(TESTS / "unit" / "core" / "test_x.py") == "unit/core"
    assert layer_of(TESTS / "plugin" / "unit.c") == "plugin"
    assert layer_of(TESTS / "test_x.py") == "tests"


def test_the_table_names_what_is_open_and_what_failed() -> None:
    lines = table({3: {"unit/core": 2, "plugin": 1}, 5: {}}, failed=[3])
    assert lines[0] == "A3  FAILED plugin (1), unit/core (2)"
    assert lines[1].startswith("open: A1, A2, A4, A5, A6")
    every = table({number: {"e2e": 1} for number in range(1, LAST + 1)})
    assert every[-1] == "open: none"


def test_this_very_tree_is_read() -> None:
    found = covered()
    assert found[17]["conformance"] >= 2
    assert set(found) <= set(range(1, LAST + 1))
    assert Path(TESTS, "attacks.py").is_file()
