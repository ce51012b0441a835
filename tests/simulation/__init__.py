"""The deterministic simulator: the real logic over a simulated world."""
