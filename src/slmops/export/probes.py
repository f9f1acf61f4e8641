"""Texts on which tokenizers part: numbers, signs, spaces, marks of other languages, line ends."""

PROBES = (
    "Where is my order BL-48213? It should have arrived on Monday.",
    'I paid 1,250.50 € on 2026-03-04; "refund", please!  Two spaces.',
    "Grüße, Zoë 🙂 – naïve café, 東京 and مرحبا\nA second line\tand a tab.",
)
