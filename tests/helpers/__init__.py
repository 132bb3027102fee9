"""Helpers of several tests: tiny models, synthetic data, a Hub and servers on localhost."""
