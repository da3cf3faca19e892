"""What the font draws, and how the rest is shown."""

from candor.fonts import drawable, undrawable


def test_letters_of_the_font_stay() -> None:
    for text in (
        "dog 1.5 \u2192 $x_1$\n",
        "\u017elu\u0165",
        "\u0436\u0443\u043a",
        "\u03bc\u03ad\u03bb\u03b9",
    ):
        assert drawable(text) == text
        assert undrawable(text) == ""


def test_characters_without_a_glyph_and_from_right_to_left_are_shown_by_their_codes() -> None:
    assert drawable("a\u732bb") == "a[U+732B]b"
    assert drawable("\u05d0") == "[U+05D0]"
    assert undrawable("\u732b b \u05d0\u732b") == "\u05d0\u732b"
