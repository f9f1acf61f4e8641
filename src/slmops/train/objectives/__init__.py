"""Terms of the loss that a student is trained with, one idea a file; docs/guides/distil.md explains the choice."""
