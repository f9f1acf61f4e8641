"""The parts of the headline benchmark: data, cells, records, and what they come to."""
