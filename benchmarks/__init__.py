"""Measurements, outside the test run. Each prints its table and says what machine it ran on."""
