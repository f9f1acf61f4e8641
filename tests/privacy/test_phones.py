"""Phone numbers are found as people write them; digits that may as well be an order's are left alone."""

from __future__ import annotations

import random
import re

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from slmops.privacy.redaction import redactor
from slmops.recipe.privacy import PrivacySettings

ONLY_PHONES = redactor(PrivacySettings(redact=["phone"]))
REGIONS = ("US", "GB", "DE", "FR", "IT", "NL", "AT", "CH", "BE", "AU", "JP", "ZA")
PARTED = {"with spaces": " ", "with dashes": "-", "with dots": "."}


def written(region: str, kind: int) -> dict[str, str]:
    """An example number of the region, in the ways in which it is written."""
    number = phonenumbers.example_number_for_type(region, kind)
    national = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
    international = phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)
    forms = {how: re.sub(r"[ -]", mark, national) for how, mark in PARTED.items()}
    forms |= {f"+ {how}": re.sub(r"[ -]", mark, international) for how, mark in PARTED.items()}
    e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    return {**forms, "national": national, "international": international, "e164": e164}


@pytest.mark.parametrize("around", ["{}", "please use {} from nine on", "({})", "Anna Berg, {}, Berlin"])
@pytest.mark.parametrize("kind", [PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE])
@pytest.mark.parametrize("region", REGIONS)
def test_a_number_whose_groups_are_parted_or_that_has_a_plus_is_found(region, kind, around):
    finder = redactor(PrivacySettings(redact=["phone"], phone_regions=[region]))
    missed = {
        how: form for how, form in written(region, kind).items() if not finder.redact([around.format(form)]).values
    }
    assert not missed


@pytest.mark.parametrize(
    "word", ["phone", "call me:", "my number is", "Telefon", "erreichbar unter", "tél.", "mon numéro :"]
)
@pytest.mark.parametrize("kind", [PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE])
@pytest.mark.parametrize("region", REGIONS)
def test_digits_in_one_piece_are_found_behind_a_word(region, kind, word):
    finder = redactor(PrivacySettings(redact=["phone"], phone_regions=[region]))
    digits = re.sub(r"\D", "", written(region, kind)["national"])
    assert list(finder.redact([f"{word} {digits} please"]).values.values()) == [digits]


@pytest.mark.parametrize("region", [region for region in REGIONS if region not in ("US", "IT")])
def test_a_mobile_number_in_one_piece_is_found_by_its_zero(region):
    finder = redactor(PrivacySettings(redact=["phone"], phone_regions=[region]))
    digits = re.sub(r"\D", "", written(region, PhoneNumberType.MOBILE)["national"])
    assert list(finder.redact([f"write to {digits} please"]).values.values()) == [digits]


@given(st.integers(10**8, 10**13 - 1))
def test_digits_in_one_piece_without_a_zero_are_no_phone_number(number):
    for text in (f"where is {number}?", f"order {number}", f'{{"id": "{number}"}}'):
        assert ONLY_PHONES.redact([text]).texts == (text,)


@pytest.mark.parametrize(("digits", "most"), [(8, 0), (9, 2), (10, 25), (11, 15), (12, 6)])
def test_few_random_digits_are_taken_for_a_phone_number(digits, most):
    """Of 1,000 of each length; one in ten begins with 0, and it is those that are found."""
    rng = random.Random(digits)
    drawn = ["".join(rng.choice("0123456789") for _ in range(digits)) for _ in range(1_000)]
    assert sum(bool(ONLY_PHONES.redact([f"where is {number}?"]).values) for number in drawn) <= most


@pytest.mark.parametrize(
    "text",
    ["version 10.0.22.21 of 1.2.3.4.5", "it costs 1234567.89 or 12.345.678,90", "on 05.11.2026 14:30, 2026-11-05 12"],
)
def test_dots_do_not_make_a_phone_number(text):
    assert ONLY_PHONES.redact([text]).texts == (text,)
