"""Microsoft Presidio as one more detector: names and places, which no rule can find."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from slmops.errors import BadInput
from slmops.privacy.spans import Detector, Span
from slmops.recipe.privacy import Presidio, PrivacySettings


def check_presidio(settings: Presidio) -> None:
    """Refuse what would come to light only when the first text is read, or would be fetched from the network.

    Raises:
        BadInput: Presidio or the spaCy pipeline is not installed.
    """
    if find_spec("presidio_analyzer") is None:
        raise BadInput(
            "privacy.detector: presidio needs presidio-analyzer, which is not installed",
            hint="pip install 'slmops[presidio]'",
        )
    if not Path(settings.model).is_dir() and find_spec(settings.model) is None:
        raise BadInput(
            f"privacy.presidio.model: there is no spaCy pipeline {settings.model}",
            hint=f"python -m spacy download {settings.model}, or give the folder of one",
        )


def check_detector(base_url: str, settings: PrivacySettings) -> None:
    """As `check_presidio`, where texts for this endpoint are read by it.

    Raises:
        BadInput: see there.
    """
    if settings.detector == "presidio" and not settings.is_local(base_url):
        check_presidio(settings.presidio)


def presidio(settings: Presidio) -> Detector:
    """What Presidio finds of the entities that are asked for, each as a kind of its own: `person`.

    Raises:
        BadInput: see `check_presidio`.
    """
    check_presidio(settings)
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    model = {"lang_code": settings.language, "model_name": settings.model}
    engine = NlpEngineProvider(nlp_configuration={"nlp_engine_name": "spacy", "models": [model]}).create_engine()
    analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=[settings.language])
    if odd := sorted(set(settings.entities) - set(analyzer.get_supported_entities(settings.language))):
        raise BadInput(f"privacy.presidio.entities: Presidio knows no {odd[0]} in language {settings.language}")

    def find(text: str) -> Iterator[Span]:
        for one in analyzer.analyze(
            text, language=settings.language, entities=settings.entities, score_threshold=settings.min_score
        ):
            yield Span(one.start, one.end, one.entity_type.lower())

    return find
