"""What several tests build on: tiny models, made data, a Hub and servers on this machine."""
