"""The folder a model ships in: written once, checked on every opening, and enough to answer from."""

from __future__ import annotations

from slmops.bundle.manifest import Manifest
from slmops.bundle.predict import Bundle, Prediction
from slmops.bundle.read import open_bundle
from slmops.bundle.write import AdapterPart, place_bundle, write_bundle

__all__ = ["AdapterPart", "Bundle", "Manifest", "Prediction", "open_bundle", "place_bundle", "write_bundle"]
