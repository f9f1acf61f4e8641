"""Personal numbers of states: the form in which they are written, and python-stdnum's check of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import NamedTuple, Protocol

from slmops.privacy.spans import Detector, Span


class Number(NamedTuple):
    """A kind of number.

    Attributes:
        module: of python-stdnum; None for one that it does not know, which counts by its form alone.
        form: how people write it.
        bare: the same without anything that sets it apart; it counts only behind a word such as `SSN` or `tax id`,
            since other numbers of that many digits pass a single check digit one time in ten.
    """

    module: str | None
    form: str | None
    bare: str | None = None


NUMBERS: Mapping[str, Sequence[Number]] = {
    "at": [Number("at.vnr", r"\d{4} \d{6}", r"\d{10}")],
    "be": [Number("be.nn", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", r"\d{11}")],
    "br": [Number("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}", r"\d{11}")],
    "ca": [Number("ca.sin", r"\d{3}-\d{3}-\d{3}", r"\d{3} ?\d{3} ?\d{3}")],
    "ch": [Number("ch.ssn", r"756\.?\d{4}\.?\d{4}\.?\d{2}")],
    "cl": [Number("cl.rut", r"\d{1,2}\.\d{3}\.\d{3}-[\dkK]", r"\d{7,8}-?[\dkK]")],
    "cn": [Number("cn.ric", r"\d{17}[\dXx]")],
    "cz": [Number("cz.rc", r"\d{6}/\d{3,4}", r"\d{9,10}")],
    "de": [Number("de.idnr", r"\d{2} \d{3} \d{3} \d{3}", r"\d{11}")],
    "dk": [Number("dk.cpr", r"\d{6}-\d{4}", r"\d{10}")],
    "es": [Number("es.dni", r"\d{8}-?[A-Za-z]"), Number("es.nie", r"[XYZxyz]-?\d{7}-?[A-Za-z]")],
    "fi": [Number("fi.hetu", r"\d{6}[-+A-FU-Ya-fu-y]\d{3}[0-9A-Za-z]")],
    "fr": [Number("fr.nir", r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[ABab]) ?\d{3} ?\d{3} ?\d{2}")],
    "gb": [
        Number("gb.nhs", r"\d{3} \d{3} \d{4}", r"\d{3}-?\d{3}-?\d{4}"),
        Number(
            None, r"[A-CEGHJ-PR-TW-Za-ceghj-pr-tw-z][A-CEGHJ-NPR-TW-Za-ceghj-npr-tw-z] ?\d{2} ?\d{2} ?\d{2} ?[A-Da-d]"
        ),
    ],
    "hr": [Number("hr.oib", None, r"\d{11}")],
    "ie": [Number("ie.pps", r"\d{7}[A-Wa-w][A-IWa-iw]?")],
    "in": [Number("in_.aadhaar", r"\d{4} \d{4} \d{4}", r"\d{12}"), Number("in_.pan", r"[A-Za-z]{5}\d{4}[A-Za-z]")],
    "it": [
        Number("it.codicefiscale", r"[A-Za-z]{6}[0-9LMNP-Vlmnp-v]{2}[A-Za-z][0-9LMNP-Vlmnp-v]{2}[A-Za-z]\w{3}[A-Za-z]")
    ],
    "kr": [Number("kr.rrn", r"\d{6}-\d{7}", r"\d{13}")],
    "mx": [Number("mx.curp", r"[A-Za-z]{4}\d{6}[A-Za-z]{6}[0-9A-Za-z]\d")],
    "nl": [Number("nl.bsn", r"\d{4}\.\d{2}\.\d{3}", r"\d{9}")],
    "no": [Number("no.fodselsnummer", r"\d{6} \d{5}", r"\d{11}")],
    "pl": [Number("pl.pesel", None, r"\d{11}")],
    "ro": [Number("ro.cnp", r"[1-8]\d{12}")],
    "se": [Number("se.personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}", r"(?:\d{2})?\d{10}")],
    "sk": [Number("sk.rc", r"\d{6}/\d{3,4}", r"\d{9,10}")],
    "tr": [Number("tr.tckimlik", None, r"\d{11}")],
    "us": [Number("us.ssn", r"\d{3}-\d{2}-\d{4}", r"\d{3} ?\d{2} ?\d{4}")],
    "za": [Number("za.idnr", r"\d{6} \d{4} \d{3}", r"\d{13}")],
}

_WORDS = re.compile(
    r"\b(?:ssn|social[ -]?security|social insurance|sin|nino|national[ -]?insurance|ni number|nhs|tax|tin|steuer\w*|"
    r"idnr|bsn|burgerservice\w*|sofi\w*|pesel|cpf|oib|cpr|person\w*|citizen|fødselsnummer|hetu|henkilötunnus|nir|"
    r"sécurité sociale|aadhaar|rut|run|rodné|birth number|national|identity|identification|id card|id|ausweis\w*|"
    r"sozialversicherung\w*|svnr|sv|versicherung\w*|kimlik|passport|rrn|registre national|rijksregister\w*)\b"
    r"[^\d\n]{0,20}$",
    re.IGNORECASE,
)
_NOT_OF_A_PERSON = re.compile(r"\b(?:order|invoice|ticket|article|item|tracking|transaction|session) id\b", re.I)
_BEFORE = 48


def national_ids(countries: Sequence[str]) -> Detector:
    """Numbers of the countries' residents."""
    kinds = [number for country in countries for number in NUMBERS[country]]
    forms = [(number, _standing_alone(number.form), False) for number in kinds if number.form]
    forms += [(number, _standing_alone(number.bare), True) for number in kinds if number.bare]

    def find(text: str) -> Iterator[Span]:
        if not _SOME_DIGITS.search(text):
            return
        for number, form, needs_word in forms:
            for match in form.finditer(text):
                if needs_word and not _is_told(text[max(0, match.start() - _BEFORE) : match.start()]):
                    continue
                if number.module is None or _is_valid(number.module, match[0]):
                    yield Span(*match.span(), "national_id")

    return find


_SOME_DIGITS = re.compile(r"(?:\d\D?){4}")


def _is_told(before: str) -> bool:
    return bool(_WORDS.search(before)) and not _NOT_OF_A_PERSON.search(before)


@cache
def _standing_alone(form: str) -> re.Pattern[str]:
    """Not as a part of a longer number or word."""
    return re.compile(rf"(?<![\w.-])(?<![\d][ /])(?:{form})(?!\w|[-./ ]\d)")


def _is_valid(module: str, number: str) -> bool:
    """Whether a number passes its check. One that the check itself fails at, as with a county that it has no name for,
    counts: what may be personal does not leave.
    """
    try:
        return _module(module).is_valid(number)
    except Exception:
        return True


class _Checks(Protocol):
    def is_valid(self, number: str) -> bool: ...


@cache
def _module(name: str) -> _Checks:
    found: _Checks = import_module(f"stdnum.{name}")
    return found
