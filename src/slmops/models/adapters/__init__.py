"""Adapters: few weights beside a model that stays as it is."""
