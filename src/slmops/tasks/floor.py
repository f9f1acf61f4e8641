"""What any model must beat: a bag of words for labels, patterns for fields, texts at hand for the rest."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from slmops.tasks.base import Row
from slmops.tasks.patterns import Finder, learn_patterns, learn_words
from slmops.tasks.schema import choices, types

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")


def classify(texts: Sequence[str], labels: Sequence[str], unseen: Sequence[str]) -> list[str]:
    """Labels of `unseen` by TF-IDF over 1–2-grams and logistic regression fitted on `texts`."""
    if len(set(labels)) == 1:
        return [labels[0]] * len(unseen)
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=100.0, max_iter=1000),
    )
    return [str(label) for label in model.fit(texts, labels).predict(unseen)]


def extract(
    schema: Mapping[str, Any], label: str | None, train: Sequence[Row], texts: Sequence[str]
) -> list[dict[str, Any]]:
    """Answers to `texts` by rules learned from `train`, one property at a time.

    Properties with a closed list of values are found by their words, all others by shapes and known values. A
    required property that nothing was found for gets its most frequent value of the training rows.
    """
    seen, answers = [row["input"] for row in train], [row["output"] for row in train]
    found: list[dict[str, Any]] = [{} for _ in texts]
    for name, rules in schema["properties"].items():
        values = [answer.get(name) for answer in answers]
        if name == label:
            guesses: Sequence[Any] = _labels(seen, values, texts)
        else:
            find = _finder(rules, seen, values)
            guesses = [find(text) for text in texts]
        usual = Counter(values).most_common(1)[0][0] if name in schema.get("required", ()) else None
        for answer, guess in zip(found, guesses, strict=True):
            value = usual if guess is None else guess
            if value is not None or name in schema.get("required", ()):
                answer[name] = value
    return found


def _labels(seen: Sequence[str], values: Sequence[Any], texts: Sequence[str]) -> Sequence[str | None]:
    known = [(text, str(value)) for text, value in zip(seen, values, strict=True) if value is not None]
    if not known:
        return [None] * len(texts)
    return classify([text for text, _ in known], [value for _, value in known], texts)


def _finder(rules: Mapping[str, Any], seen: Sequence[str], values: Sequence[Any]) -> Finder:
    from jsonschema import Draft202012Validator

    if choices(rules) is not None:
        return learn_words(seen, values)
    numeric = bool(types(rules) & {"number", "integer"})
    find = learn_patterns(seen, values, _number if numeric else str)
    allowed: Callable[[Any], bool] = Draft202012Validator(dict(rules)).is_valid
    return lambda text: value if allowed(value := find(text)) else None


def _number(text: str) -> float | int | None:
    """The number that a text is, thousands separators aside."""
    plain = text.replace(",", "")
    try:
        return int(plain) if plain.lstrip("+-").isdecimal() else float(plain)
    except ValueError:
        return None


def most_frequent(answers: Sequence[str], key: Callable[[str], str]) -> list[str]:
    """The one answer that is given most often; answers of one `key` are the same, and the first of them is taken.

    Empty where there are no answers.
    """
    counted = Counter(map(key, answers)).most_common(1)
    return [next(answer for answer in answers if key(answer) == counted[0][0])] if counted else []


def first_sentences(summaries: Sequence[str], texts: Sequence[str]) -> list[str]:
    """The beginning of each text, with the median number of sentences of `summaries`."""
    count = int(median(len(_sentences(summary)) for summary in summaries))
    return [" ".join(_sentences(text)[:count]) for text in texts]


def nearest(texts: Sequence[str], answers: Sequence[str], unseen: Sequence[str]) -> list[str]:
    """The answer to the text that is nearest by the cosine of TF-IDF vectors; the first of several as near."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Words of one letter and signs count too: a text of nothing else must not leave the vocabulary empty.
    vectors = TfidfVectorizer(tokenizer=str.split, token_pattern=None, sublinear_tf=True)
    known = vectors.fit_transform(texts)
    alike = vectors.transform(unseen) @ known.T
    return [answers[int(row.toarray().argmax())] for row in alike]


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]
