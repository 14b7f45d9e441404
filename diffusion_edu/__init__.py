"""Diffusion models from first principles: schedules, denoisers, samplers, small networks."""

__version__ = "0.4.0"
