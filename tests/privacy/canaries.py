"""Secrets that must not get out, one of every kind and more, and texts that hold none."""

from __future__ import annotations

CANARIES = {
    "email": "zora.quist@canary-mail.example",
    "phone": "+49 30 901820",
    "iban": "DE89 3704 0044 0532 0130 00",
    "card": "4111 1111 1111 1111",
    "national_id": "536-90-4399",
    "ip": "203.0.113.77",
    "url": "https://canary.example/reset?token=q8Zr2",
    "secret": "sk-canaryCANARYcanary0123456789",
}
"""By kind; each is found by its form alone, whatever stands around it."""

FOUND = [
    ("email", "write to ({})", "o'neil+spam@sub.müller.de"),
    ("email", "mailto:{}.", "a.b@x.co"),
    ("email", '{{"from": "{}"}}', "a@x-y.example"),
    ("phone", "ring {} at noon", "(415) 555-2671"),
    ("phone", "oder {}!", "030 901820"),
    ("phone", "my mobile: {}", "4155552671"),
    ("phone", "{}", "+33 1 42 68 53 00"),
    ("phone", "from {} on", "0049 30 901820"),
    ("iban", "to {} PLEASE AND THANKS", "DE89370400440532013000"),
    ("iban", "account {}, thanks", "gb82 west 1234 5698 7654 32"),
    ("card", "paid with {}.", "5555-5555-5555-4444"),
    ("card", "123 {} 12/29", "378282246310005"),
    ("national_id", "I am {}", "RCCMNL83S18D969H"),
    ("national_id", "DNI {}", "12345678Z"),
    ("national_id", "Steuer-ID: {}", "36574261809"),
    ("national_id", "SSN {}", "536904399"),
    ("national_id", "NINO {}.", "AB 12 34 56 C"),
    ("national_id", "INSEE {}", "2 95 10 99 126 111 93"),
    ("ip", "from {} today", "10.1.2.3"),
    ("ip", "http://{}/x", "10.1.2.3"),
    ("ip", "host {}:", "2001:db8::ff00:42:8329"),
    ("url", "see {}.", "postgres://app:hunter2@db.example/main"),
    ("url", "({})", "https://x.example/a?id=3&X-Amz-Signature=abc"),
    ("url", "{}", "https://hooks.chat.example/services/XXyyZZ12aabbCCddEEff99Q"),
    ("secret", "key {}", "AKIAIOSFODNN7EXAMPLE"),
    ("secret", "Password: {}", "hunter2!"),
    ("secret", "my password is {}, ok?", "s3cret"),
    ("secret", "Authorization: Bearer {}", "abcdef.1234567890"),
    ("secret", '{{"api_key": "{}"}}', "Zq81xx"),
    ("secret", "{}", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc_DEF-123"),
    ("secret", "use {}", "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY3z"),
    ("secret", "{}", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----"),
]
"""Kind, what stands around it, and what is to be found."""

CLEAN = [
    "Where is order 4711?",
    "order number 4711 2345 and invoice no. 030 1234567",
    "bestellnr 20241126001 vom 26.11.2024",
    "delivered on 2024-11-26, then 26/11/2024 at 12:30:45",
    "version 1.2.3.4, v10.0.0.1 and Chrome/10.0.22.21 of 127.0.0.1",
    "4111 1111 1111 1112 is no card, and 1234567890123452 begins as none",
    "DE89 3704 0044 0532 0130 01 is no account",
    "std::vector<a::b> and ab:cd",
    "it costs 1,234,567.89 EUR, or 100 200 300",
    "parcel 1Z999AA10123456784, sha 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12",
    "uuid 123e4567-e89b-12d3-a456-426614174000",
    "https://shop.example/items/42?colour=red#top, user@localhost, @name, a @ b",
    "my password is wrong and the token: invalid",
    "36574261809 pieces, 536904399 of them",
]
