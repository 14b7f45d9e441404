"""The equations that only `book/slips.md` states."""

from math import exp, gamma, pi

import pytest
from scipy.integrate import quad

from tests.equations import equation


@equation("eq-rescaled-density", method="exact", tolerance="1e-9 (quadrature over the radius)")
@pytest.mark.parametrize("d", [1, 2, 3])
def test_density_of_a_rescaled_variable(d):
    """Data N(0, 4 I), t = 0.7, and sigma^2 = e^{2t} - 1, so that e^{-t} (X_0 + sigma xi) is the OU marginal."""
    t = 0.7
    wide = 4 + exp(2 * t) - 1
    true_variance = 4 * exp(-2 * t) + 1 - exp(-2 * t)

    def normal(radius: float, variance: float) -> float:
        return exp(-(radius**2) / (2 * variance)) / (2 * pi * variance) ** (d / 2)

    def density(radius: float, factor: float) -> float:
        return factor * normal(exp(t) * radius, wide)

    for radius in (0.0, 0.5, 2.0):
        assert density(radius, exp(d * t)) == pytest.approx(normal(radius, true_variance), rel=1e-9)
    surface = 2 * pi ** (d / 2) / gamma(d / 2)
    mass = quad(lambda r: density(r, exp(d * t)) * surface * r ** (d - 1), 0, 30)[0]
    assert mass == pytest.approx(1, abs=1e-9)
    if d > 1:  # with e^t, as once printed, the mass is e^{(1 - d) t}
        wrong = quad(lambda r: density(r, exp(t)) * surface * r ** (d - 1), 0, 30)[0]
        assert wrong == pytest.approx(exp((1 - d) * t), abs=1e-9) and wrong < 0.6
