"""What is measured: each module has the scenarios of one question."""
