"""What leaves this machine: found, replaced by placeholders, put back into the answers, and written down."""
