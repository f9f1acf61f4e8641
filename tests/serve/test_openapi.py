"""What a server says of itself is what it does."""

from __future__ import annotations

import json

from jsonschema import Draft202012Validator

from slmops.serve.access import Keys
from tests.serve.listening import listen


def test_the_document_names_what_is_answered(writer, tiny):
    for client in listen(writer, keys=Keys(["a-key-of-some-length"])):
        document = json.loads(client.send("/openapi.json").body)
        assert document["openapi"] == "3.1.0"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                status = client.send(path.format(model="tiny"), method=method.upper()).status
                assert status == (401 if operation["security"] else 200)
        wrong = client.ask("/v1/models").body
        validator = Draft202012Validator({"$ref": "#/components/schemas/ErrorReply", **document})
        validator.validate(wrong)


def test_bodies_are_described_as_they_are_read(writer, tiny):
    for client in listen(writer):
        document = json.loads(client.send("/openapi.json").body)
        content = document["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]
        validator = Draft202012Validator({**content["application/json"]["schema"], **document})
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
        for more in ({}, {"n": 2}, {"n": 0}, {"temperature": 3}, {"max_token": 1}, {"stop": ["a"] * 5}):
            status = client.ask("/v1/chat/completions", {**asked, **more}).status
            assert validator.is_valid({**asked, **more}) == (status == 200), more
