"""How other sources write the same diffusion: their formulas beside ours, each with the line of code that computes it.

Every line is evaluated on numbers: `evaluate(line, names(...))`. Tests hold each pair equal, and the widget
`ConventionTranslator` shows what the lines gave. The names on the right of a source's `letters` are always ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion_edu.analytic import GaussianMixture
from diffusion_edu.denoisers import DenoiserFunction
from diffusion_edu.guidance import classifier_free, log_gradient
from diffusion_edu.process import Prediction, posterior, q_sample, transition
from diffusion_edu.schedules import Flow, LinearBeta, Schedule

STEPS = 1000  # one step of a chain is 1 / STEPS of our time
GUIDANCE_TIME = 0.2  # where guidance is shown: the two classes still differ
CLASSES = GaussianMixture(
    torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 0.5, torch.tensor([0.3, 0.7], dtype=torch.float64)
)
QUANTITIES = {
    "marginal": "noised data",
    "step": "one step forward",
    "loss": "training loss",
    "score": "score",
    "reverse": "one step back",
    "guidance": "guidance",
}


class Row(NamedTuple):
    """One quantity in a source's letters and in ours: formulas in TeX, and lines of code with the same value."""

    theirs: str
    their_code: str
    ours: str
    our_code: str


@dataclass(frozen=True)
class Source:
    """A paper or a course, by a short name and a full one.

    letters: their names, each as a line in ours. time, signal, noise: lines in their letters with their time and the two
    coefficients of their noised data. clock: their time as text, with {} for the number; digits: how many it has after the
    point; beyond: the largest time that they have, or None. mind: what to look out for. weight: how they write the strength
    of guidance, as text with {} for the number, and the line for it. rows: what is translated, by keys of QUANTITIES.
    """

    short: str
    name: str
    letters: Mapping[str, str]
    clock: str
    time: str
    signal: str
    noise: str
    mind: str
    rows: Mapping[str, Row]
    digits: int = 2
    beyond: float | None = None
    weight: tuple[str, str] | None = None


def names(t: Tensor, w: float = 3.0) -> dict[str, Any]:
    """Our names at times `t`, (N,) in [1 / STEPS, 1): one pixel, x0 = 0.8, of data in two classes on a line; weight `w`.

    States have shape (N,), and the denoiser is exact. s is one step of a chain before t; x_u is x_t on the straight line, at
    time u of `Flow`.
    """
    schedule, s, y = LinearBeta(), t - 1 / STEPS, torch.ones_like(t, dtype=torch.long)
    x0, eps, z = (torch.full_like(t, value) for value in (0.8, -0.6, 0.5))
    denoiser, x_t = on_the_line(schedule), q_sample(schedule, x0, t, eps)
    u, u_s = (schedule.sigma(each) / (schedule.alpha(each) + schedule.sigma(each)) for each in (t, s))
    tools = (math, torch, transition, posterior, q_sample, classifier_free, Flow)
    return {
        **{tool.__name__: tool for tool in tools},
        **{
            "schedule": schedule,
            "denoiser": denoiser,
            "flow": on_the_line(Flow()),
            "t": t,
            "s": s,
            "dt": t - s,
            "y": y,
        },
        **{"x0": x0, "eps": eps, "z": z, "x_t": x_t, "x_s": q_sample(schedule, x0, s, eps), "u": u, "u_s": u_s, "w": w},
        "x_u": x_t / (schedule.alpha(t) + schedule.sigma(t)),
        "classifier": log_gradient(lambda x, t, y: CLASSES.classifier(schedule)(x[:, None], t, y), x_t, t, y),
    }


def on_the_line(schedule: Schedule) -> DenoiserFunction:
    """The exact denoiser of `CLASSES` for points of shape (N,)."""
    exact = CLASSES.denoiser(schedule)

    def denoise(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Prediction:
        return Prediction(schedule, x_t, t, exact(x_t[:, None], t, y).x0[:, 0], "x0")

    denoise.schedule, denoise.num_classes = schedule, exact.num_classes
    return denoise


def evaluate(line: str, known: Mapping[str, Any], n: int) -> Tensor:
    """What a line of code of this module gives with the `known` names, (n,)."""
    return torch.as_tensor(eval(line, {}, known), dtype=torch.float64).expand(n)  # only lines that stand in this module


def their_names(source: Source, ours: Mapping[str, Any]) -> dict[str, Any]:
    """The names that a source's lines use: its letters over ours."""
    return {**ours, **{letter: eval(line, {}, ours) for letter, line in source.letters.items()}}


CHAIN = {
    "alpha_bar": "schedule.alpha(t) ** 2",
    "beta": "1 - schedule.alpha(t) ** 2 / schedule.alpha(s) ** 2",
    "x_before": "x_s",
    "eps_theta": "denoiser(x_t, t).eps",
}
OUR_MARGINAL = (r"x_t = \alpha(t)\, x_0 + \sigma(t)\, \varepsilon", "q_sample(schedule, x0, t, eps)")
OUR_STEP = (
    r"x_t = \alpha_{t|s}\, x_s + \sigma_{t|s}\, z",
    "transition(schedule, t, s)[0] * x_s + transition(schedule, t, s)[1].sqrt() * z",
)
OUR_EULER = (
    r"x_{t + \Delta t} = x_t + f(t)\, x_t\, \Delta t + g(t) \sqrt{\Delta t}\, z",
    "x_t + schedule.drift(t) * x_t * dt + (schedule.diffusion_squared(t) * dt).sqrt() * z",
)
OUR_EULER_BACK = (
    r"x_{t - \Delta t} = x_t - [ f(t)\, x_t - g(t)^2\, s(x_t) ] \Delta t + g(t) \sqrt{\Delta t}\, z",
    "x_t - (schedule.drift(t) * x_t - schedule.diffusion_squared(t) * denoiser(x_t, t).score) * dt"
    " + (schedule.diffusion_squared(t) * dt).sqrt() * z",
)
OUR_LOSS = (r"\| \varepsilon - \hat\varepsilon \|^2", "(eps - denoiser(x_t, t).eps) ** 2")
OUR_SCORE = (r"s = -\frac{\hat\varepsilon}{\sigma(t)}", "denoiser(x_t, t).score")
OUR_SMALL_STEP_BACK = (
    r"x_s = \tilde\mu(x_t, \hat x_0) + \tilde\sigma\, z",
    "posterior(schedule, denoiser(x_t, t).x0, x_t, t, s)[0]"
    " + posterior(schedule, denoiser(x_t, t).x0, x_t, t, s)[1] * z",
)
SCALED = r"\frac{x_t}{\alpha(t)} = x_0 + \frac{\sigma(t)}{\alpha(t)}\, \varepsilon"
SCALED_STEP = (
    r"\frac{x_t}{\alpha_t} = \frac{\alpha_{t|s}\, x_s + \sigma_{t|s}\, z}{\alpha_t}",
    "(transition(schedule, t, s)[0] * x_s + transition(schedule, t, s)[1].sqrt() * z) / schedule.alpha(t)",
)
OUR_GUIDED_EPS = (
    r"\hat\varepsilon_w = (1 - w)\, \hat\varepsilon(x_t) + w\, \hat\varepsilon(x_t, y)",
    "classifier_free(denoiser, w)(x_t, t, y).eps",
)
OUR_GUIDED_SCORE = (r"s_w = (1 - w)\, s(x_t) + w\, s(x_t, y)", "classifier_free(denoiser, w)(x_t, t, y).score")
PAIR = {"eps_y": "denoiser(x_t, t, y).eps", "eps_0": "denoiser(x_t, t).eps"}

SOURCES: dict[str, Source] = {
    "ddpm": Source(
        short="DDPM",
        name="DDPM (Ho et al. 2020)",
        letters=CHAIN,
        clock="t = {} of T = 1000",
        time=f"{STEPS} * t",
        signal="alpha_bar.sqrt()",
        noise="(1 - alpha_bar).sqrt()",
        digits=0,
        mind="Their α_t is 1 − β_t, one step; the product has a bar. Their σ_t is the deviation of a step back.",
        rows={
            "marginal": Row(
                r"x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon",
                "alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps",
                *OUR_MARGINAL,
            ),
            "step": Row(
                r"x_t = \sqrt{1 - \beta_t}\, x_{t-1} + \sqrt{\beta_t}\, z",
                "(1 - beta).sqrt() * x_before + beta.sqrt() * z",
                *OUR_STEP,
            ),
            "loss": Row(r"\| \epsilon - \epsilon_\theta(x_t, t) \|^2", "(eps - eps_theta) ** 2", *OUR_LOSS),
            "score": Row(
                r"-\frac{\epsilon_\theta(x_t, t)}{\sqrt{1 - \bar\alpha_t}}",
                "-eps_theta / (1 - alpha_bar).sqrt()",
                *OUR_SCORE,
            ),
            "reverse": Row(
                r"x_{t-1} = \frac{1}{\sqrt{\alpha_t}} ( x_t - \frac{1 - \alpha_t}{\sqrt{1 - \bar\alpha_t}}\,"
                r" \epsilon_\theta ) + \sigma_t z, \quad \sigma_t^2 = \beta_t",
                "(x_t - beta / (1 - alpha_bar).sqrt() * eps_theta) / (1 - beta).sqrt() + beta.sqrt() * z",
                r"x_s = \tilde\mu(x_t, \hat x_0) + \sigma_{t|s}\, z",
                "posterior(schedule, denoiser(x_t, t).x0, x_t, t, s)[0] + transition(schedule, t, s)[1].sqrt() * z",
            ),
        },
    ),
    "vp": Source(
        short="the SDE paper, VP",
        name="SDE paper, VP (Song et al. 2021)",
        letters={
            "beta": "schedule.beta(t)",
            "B": "-2 * schedule.alpha(t).log()",
            "x": "x_t",
            "s_theta": "denoiser(x_t, t).score",
        },
        clock="t = {}, T = 1",
        time="t",
        signal="torch.exp(-B / 2)",
        noise="torch.sqrt(1 - torch.exp(-B))",
        mind="Their T is the last time, not a number of steps. The drift has half of β, the noise's variance all of it.",
        rows={
            "marginal": Row(
                r"x(t) = e^{-B(t)/2}\, x(0) + \sqrt{1 - e^{-B(t)}}\, z, \quad B(t) = \int_0^t \beta",
                "torch.exp(-B / 2) * x0 + torch.sqrt(1 - torch.exp(-B)) * eps",
                *OUR_MARGINAL,
            ),
            "step": Row(
                r"\mathrm{d}x = -\frac{1}{2} \beta(t)\, x\, \mathrm{d}t + \sqrt{\beta(t)}\, \mathrm{d}w",
                "x - beta / 2 * x * dt + (beta * dt).sqrt() * z",
                *OUR_EULER,
            ),
            "loss": Row(
                r"\lambda(t)\, \| s_\theta(x(t), t) - \nabla \log p_{0t}(x(t) | x(0)) \|^2,"
                r" \quad \lambda(t) = 1 - e^{-B(t)}",
                "(1 - torch.exp(-B)) * (s_theta - -eps / torch.sqrt(1 - torch.exp(-B))) ** 2",
                *OUR_LOSS,
            ),
            "score": Row(r"s_\theta(x(t), t)", "s_theta", *OUR_SCORE),
            "reverse": Row(
                r"\mathrm{d}x = [ -\frac{1}{2} \beta(t)\, x - \beta(t)\, \nabla \log p_t(x) ] \mathrm{d}t"
                r" + \sqrt{\beta(t)}\, \mathrm{d}\bar w, \quad \mathrm{d}t < 0",
                "x + (-beta / 2 * x - beta * s_theta) * (-dt) + (beta * dt).sqrt() * z",
                *OUR_EULER_BACK,
            ),
        },
    ),
    "ve": Source(
        short="the SDE paper, VE",
        name="SDE paper, VE (Song et al. 2021)",
        letters={
            "sigma_t": "(schedule.noise_level(t) ** 2 + 0.01**2).sqrt()",
            "sigma_s": "(schedule.noise_level(s) ** 2 + 0.01**2).sqrt()",
            "sigma_0": "0.01",
            "sigma_max": "50",
            "x": "x_t / schedule.alpha(t)",
            "x_before": "x_s / schedule.alpha(s)",
            "s_theta": "schedule.alpha(t) * denoiser(x_t, t).score",
        },
        clock="t = {}, T = 1",
        time="torch.log(sigma_t / sigma_0) / math.log(sigma_max / sigma_0)",
        signal="1.0",
        noise="(sigma_t**2 - sigma_0**2).sqrt()",
        beyond=1.0,
        mind="The data are never shrunk: x is our x_t / α, and the score is α times ours. Here σ runs from 0.01 to 50.",
        rows={
            "marginal": Row(
                r"x(t) = x(0) + \sqrt{\sigma(t)^2 - \sigma(0)^2}\, z",
                "x0 + (sigma_t**2 - sigma_0**2).sqrt() * eps",
                SCALED,
                "q_sample(schedule, x0, t, eps) / schedule.alpha(t)",
            ),
            "step": Row(
                r"x_i = x_{i-1} + \sqrt{\sigma_i^2 - \sigma_{i-1}^2}\, z",
                "x_before + (sigma_t**2 - sigma_s**2).sqrt() * z",
                *SCALED_STEP,
            ),
            "loss": Row(
                r"\lambda(t)\, \| s_\theta(x(t), t) - \nabla \log p_{0t}(x(t) | x(0)) \|^2,"
                r" \quad \lambda(t) = \sigma(t)^2 - \sigma(0)^2",
                "(sigma_t**2 - sigma_0**2) * (s_theta - -eps / (sigma_t**2 - sigma_0**2).sqrt()) ** 2",
                *OUR_LOSS,
            ),
            "score": Row(
                r"s_\theta(x(t), t)",
                "s_theta",
                r"\alpha(t)\, s(x_t)",
                "schedule.alpha(t) * denoiser(x_t, t).score",
            ),
            "reverse": Row(
                r"x_{i-1} = x_i + (\sigma_i^2 - \sigma_{i-1}^2)\, s_\theta + \sqrt{\sigma_i^2 - \sigma_{i-1}^2}\, z",
                "x + (sigma_t**2 - sigma_s**2) * s_theta + (sigma_t**2 - sigma_s**2).sqrt() * z",
                r"\frac{x_s}{\alpha_s} = \frac{\tilde\mu(x_t, \hat x_0)}{\alpha_s}"
                r" + \frac{\sigma_{t|s}}{\alpha_t}\, z",
                "posterior(schedule, denoiser(x_t, t).x0, x_t, t, s)[0] / schedule.alpha(s)"
                " + transition(schedule, t, s)[1].sqrt() / schedule.alpha(t) * z",
            ),
        },
    ),
    "vdm": Source(
        short="VDM",
        name="VDM (Kingma et al. 2021)",
        letters={
            "gamma_t": "-schedule.log_snr(t)",
            "gamma_s": "-schedule.log_snr(s)",
            "z_t": "x_t",
            "z_s": "x_s",
            "x": "x0",
            "eps_hat": "denoiser(x_t, t).eps",
        },
        clock="γ(t) = {}",
        time="gamma_t",
        signal="torch.sigmoid(-gamma_t).sqrt()",
        noise="torch.sigmoid(gamma_t).sqrt()",
        mind="Their γ is minus our log-SNR: it grows with the noise. Data are x, noised data z_t.",
        rows={
            "marginal": Row(
                r"z_t = \alpha_t x + \sigma_t \epsilon, \quad \alpha_t^2 = \mathrm{sigmoid}(-\gamma(t))",
                "torch.sigmoid(-gamma_t).sqrt() * x + torch.sigmoid(gamma_t).sqrt() * eps",
                *OUR_MARGINAL,
            ),
            "step": Row(
                r"z_t = \alpha_{t|s}\, z_s + \sigma_{t|s}\, \epsilon, \quad"
                r" \sigma_{t|s}^2 = (1 - e^{\gamma(s) - \gamma(t)})\, \sigma_t^2",
                "(torch.sigmoid(-gamma_t) / torch.sigmoid(-gamma_s)).sqrt() * z_s"
                " + (-torch.expm1(gamma_s - gamma_t) * torch.sigmoid(gamma_t)).sqrt() * z",
                *OUR_STEP,
            ),
            "loss": Row(
                r"\frac{1}{2} ( e^{\gamma(t) - \gamma(s)} - 1 )\, \| \epsilon - \hat\epsilon_\theta(z_t; t) \|^2",
                "torch.expm1(gamma_t - gamma_s) / 2 * (eps - eps_hat) ** 2",
                r"\frac{1}{2} ( \mathrm{SNR}(s) - \mathrm{SNR}(t) )\, \| x_0 - \hat x_0 \|^2",
                "(schedule.log_snr(s).exp() - schedule.log_snr(t).exp()) / 2 * (x0 - denoiser(x_t, t).x0) ** 2",
            ),
            "score": Row(
                r"-\frac{\hat\epsilon_\theta(z_t; t)}{\sigma_t}",
                "-eps_hat / torch.sigmoid(gamma_t).sqrt()",
                *OUR_SCORE,
            ),
            "reverse": Row(
                r"z_s = \frac{\alpha_s}{\alpha_t} ( z_t - \sigma_t c\, \hat\epsilon_\theta ) + \sigma_s \sqrt{c}\,"
                r" \epsilon, \quad c = 1 - e^{\gamma(s) - \gamma(t)}",
                "(torch.sigmoid(-gamma_s) / torch.sigmoid(-gamma_t)).sqrt()"
                " * (z_t + torch.sigmoid(gamma_t).sqrt() * torch.expm1(gamma_s - gamma_t) * eps_hat)"
                " + (torch.sigmoid(gamma_s) * -torch.expm1(gamma_s - gamma_t)).sqrt() * z",
                *OUR_SMALL_STEP_BACK,
            ),
        },
    ),
    "edm": Source(
        short="EDM",
        name="EDM (Karras et al. 2022)",
        letters={
            "sigma": "schedule.noise_level(t)",
            "sigma_next": "schedule.noise_level(s)",
            "sigma_data": "0.5",
            "y": "x0",
            "x": "x_t / schedule.alpha(t)",
            "x_before": "x_s / schedule.alpha(s)",
            "D": "denoiser(x_t, t).x0",
        },
        clock="σ = {}",
        time="sigma",
        signal="1.0",
        noise="sigma",
        mind="Their σ is our σ / α, and it is the time as well. Data are y, which here is a label.",
        rows={
            "marginal": Row(
                r"x = y + n, \quad n = \sigma\, \epsilon",
                "y + sigma * eps",
                SCALED,
                "q_sample(schedule, x0, t, eps) / schedule.alpha(t)",
            ),
            "step": Row(
                r"\hat x = x + \sqrt{\hat\sigma^2 - \sigma^2}\, \epsilon",
                "x_before + (sigma**2 - sigma_next**2).sqrt() * z",
                *SCALED_STEP,
            ),
            "loss": Row(
                r"\frac{\sigma^2 + \sigma_{\mathrm{data}}^2}{(\sigma\, \sigma_{\mathrm{data}})^2}\,"
                r" \| D_\theta(y + n; \sigma) - y \|^2",
                "(sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2 * (D - y) ** 2",
                r"( 1 + \frac{\sigma(t)^2}{\alpha(t)^2 c^2} )\, \| \varepsilon - \hat\varepsilon \|^2,"
                r" \quad c = \sigma_{\mathrm{data}}",
                "(1 + (schedule.noise_level(t) / 0.5) ** 2) * (eps - denoiser(x_t, t).eps) ** 2",
            ),
            "score": Row(
                r"\frac{D_\theta(x; \sigma) - x}{\sigma^2}",
                "(D - x) / sigma**2",
                r"\alpha(t)\, s(x_t)",
                "schedule.alpha(t) * denoiser(x_t, t).score",
            ),
            "reverse": Row(
                r"x_{i+1} = x_i + (\sigma_{i+1} - \sigma_i)\, \frac{x_i - D_\theta(x_i; \sigma_i)}{\sigma_i}",
                "x + (sigma_next - sigma) * (x - D) / sigma",
                r"\frac{x_s}{\alpha_s} = \frac{\alpha_s \hat x_0 + \sigma_s \hat\varepsilon}{\alpha_s}",
                "q_sample(schedule, denoiser(x_t, t).x0, s, denoiser(x_t, t).eps) / schedule.alpha(s)",
            ),
        },
    ),
    "flow": Source(
        short="flow matching",
        name="Flow matching, rectified flow (Lipman et al.; Liu et al. 2023)",
        letters={
            "t": "1 - u",
            "t_next": "1 - u_s",
            "x1": "x0",
            "x0": "eps",
            "x": "x_u",
            "v": "denoiser(x_t, t).x0 - denoiser(x_t, t).eps",
        },
        clock="t = {} (backwards)",
        time="t",
        signal="t",
        noise="1 - t",
        mind="Time runs backwards: x_1 is the data and x_0 the noise, so the velocity has the other sign. Here σ_min is 0.",
        rows={
            "marginal": Row(
                r"x_t = t\, x_1 + (1 - t)\, x_0",
                "t * x1 + (1 - t) * x0",
                r"x_u = \frac{x_t}{\alpha(t) + \sigma(t)} = (1 - u)\, x_0 + u\, \varepsilon",
                "q_sample(Flow(), x0, u, eps)",
            ),
            "loss": Row(
                r"\| v_\theta(x_t, t) - (x_1 - x_0) \|^2",
                "(v - (x1 - x0)) ** 2",
                r"\| \hat v_u - (\varepsilon - x_0) \|^2",
                "(flow(x_u, u).velocity - (eps - x0)) ** 2",
            ),
            "score": Row(
                r"\frac{t\, v_\theta(x_t, t) - x_t}{1 - t}",
                "(t * v - x) / (1 - t)",
                r"s(x_u) = -\frac{\hat\varepsilon}{u}",
                "flow(x_u, u).score",
            ),
            "reverse": Row(
                r"x_{t+h} = x_t + h\, v_\theta(x_t, t)",
                "x + (t_next - t) * v",
                r"x_{u-h} = x_u - h\, \hat v_u",
                "x_u - (u - u_s) * flow(x_u, u).velocity",
            ),
        },
    ),
    "cfg": Source(
        short="the CFG paper",
        name="Classifier-free guidance paper (Ho & Salimans 2022)",
        letters={
            "lam": "schedule.log_snr(t)",
            "lam_next": "schedule.log_snr(s)",
            "z_lam": "x_t",
            "z_next": "x_s",
            "x": "x0",
            "x_theta": "denoiser(x_t, t).x0",
            "eps_theta": "denoiser(x_t, t).eps",
            "w": "w - 1",
            **{"eps_c": "denoiser(x_t, t, y).eps", "eps_0": "denoiser(x_t, t).eps"},
        },
        clock="λ = {}",
        time="lam",
        signal="torch.sigmoid(lam).sqrt()",
        noise="torch.sigmoid(-lam).sqrt()",
        mind="Their time is our log-SNR λ itself. Their w is our w − 1: their 0 is the plain conditional model.",
        weight=("w = {}", "w"),
        rows={
            "marginal": Row(
                r"z_\lambda = \alpha_\lambda x + \sigma_\lambda \epsilon, \quad \alpha_\lambda^2 = 1 / (1 + e^{-\lambda})",
                "torch.sigmoid(lam).sqrt() * x + torch.sigmoid(-lam).sqrt() * eps",
                *OUR_MARGINAL,
            ),
            "step": Row(
                r"z_\lambda = \frac{\alpha_\lambda}{\alpha_{\lambda'}}\, z_{\lambda'} + \sigma_{\lambda|\lambda'} \epsilon,"
                r" \quad \sigma_{\lambda|\lambda'}^2 = (1 - e^{\lambda - \lambda'})\, \sigma_\lambda^2",
                "(torch.sigmoid(lam) / torch.sigmoid(lam_next)).sqrt() * z_next"
                " + (-torch.expm1(lam - lam_next) * torch.sigmoid(-lam)).sqrt() * z",
                *OUR_STEP,
            ),
            "loss": Row(r"\| \epsilon_\theta(z_\lambda) - \epsilon \|^2", "(eps_theta - eps) ** 2", *OUR_LOSS),
            "score": Row(
                r"-\frac{\epsilon_\theta(z_\lambda)}{\sigma_\lambda}",
                "-eps_theta / torch.sigmoid(-lam).sqrt()",
                *OUR_SCORE,
            ),
            "reverse": Row(
                r"z_{\lambda'} = e^{\lambda - \lambda'} \frac{\alpha_{\lambda'}}{\alpha_\lambda}\, z_\lambda"
                r" + (1 - e^{\lambda - \lambda'})\, \alpha_{\lambda'}\, x_\theta + \tilde\sigma_{\lambda'|\lambda} \epsilon",
                "torch.exp(lam - lam_next) * (torch.sigmoid(lam_next) / torch.sigmoid(lam)).sqrt() * z_lam"
                " - torch.expm1(lam - lam_next) * torch.sigmoid(lam_next).sqrt() * x_theta"
                " + (-torch.expm1(lam - lam_next) * torch.sigmoid(-lam_next)).sqrt() * z",
                *OUR_SMALL_STEP_BACK,
            ),
            "guidance": Row(
                r"(1 + w)\, \epsilon_\theta(z_\lambda, c) - w\, \epsilon_\theta(z_\lambda)",
                "(1 + w) * eps_c - w * eps_0",
                *OUR_GUIDED_EPS,
            ),
        },
    ),
    "coste": Source(
        short="Coste",
        name="Lecture notes: Coste 2023",
        letters={
            "time": "-schedule.alpha(t).log()",
            "step": "schedule.beta(t) / 2 * dt",
            "x": "x_t",
            "s_theta": "denoiser(x_t, t).score",
            "lam": "w",
            "log_D": "classifier",
        },
        clock="t = {}, T ≈ 10",
        time="time",
        signal="torch.exp(-time)",
        noise="torch.sqrt(1 - torch.exp(-2 * time))",
        mind="One process for all schedules: his time is our −log α(t). His p_t is the law forwards, q_t that backwards.",
        weight=("λ = {}, with a classifier", "lam"),
        rows={
            "marginal": Row(
                r"X_t = e^{-t} X_0 + \sqrt{1 - e^{-2t}}\, \xi",
                "torch.exp(-time) * x0 + torch.sqrt(1 - torch.exp(-2 * time)) * eps",
                *OUR_MARGINAL,
            ),
            "step": Row(
                r"\mathrm{d}X_t = -X_t\, \mathrm{d}t + \sqrt{2}\, \mathrm{d}B_t",
                "x - x * step + (2 * step) ** 0.5 * z",
                *OUR_EULER,
            ),
            "reverse": Row(
                r"\mathrm{d}Y_t = ( 2 \nabla \log q_t(Y_t) + Y_t )\, \mathrm{d}t + \sqrt{2}\, \mathrm{d}B_t",
                "x + (2 * s_theta + x) * step + (2 * step) ** 0.5 * z",
                *OUR_EULER_BACK,
            ),
            "guidance": Row(
                r"s_\theta(t, x) + \lambda \nabla \log D(c | x)",
                "s_theta + lam * log_D",
                *OUR_GUIDED_SCORE,
            ),
        },
    ),
    "della-noce": Source(
        short="Della Noce",
        name="Lecture notes: Della Noce 2024",
        letters={
            "alpha": "schedule.alpha(t) ** 2",
            "beta": "1 - schedule.alpha(t) ** 2 / schedule.alpha(s) ** 2",
            "x_before": "x_s",
            "eps_k": "denoiser(x_t, t).eps",
            "s": "w - 1",
            **PAIR,
        },
        clock="k = {} of n = 1000",
        time=f"{STEPS} * t",
        signal="alpha.sqrt()",
        noise="(1 - alpha).sqrt()",
        digits=0,
        mind="His α_k is the whole product, DDPM's ᾱ. With a classifier his s is our w; without one it is our w − 1.",
        weight=("s = {}", "s"),
        rows={
            "marginal": Row(
                r"x_k = \sqrt{\alpha_k}\, x_0 + \sqrt{1 - \alpha_k}\, \varepsilon",
                "alpha.sqrt() * x0 + (1 - alpha).sqrt() * eps",
                *OUR_MARGINAL,
            ),
            "step": Row(
                r"x_k = \sqrt{1 - \beta_k}\, x_{k-1} + \sqrt{\beta_k}\, z",
                "(1 - beta).sqrt() * x_before + beta.sqrt() * z",
                *OUR_STEP,
            ),
            "loss": Row(r"\| \varepsilon - \varepsilon_k(x_k, \theta) \|^2", "(eps - eps_k) ** 2", *OUR_LOSS),
            "score": Row(
                r"-\frac{\varepsilon_k(x_k, \theta)}{\sqrt{1 - \alpha_k}}", "-eps_k / (1 - alpha).sqrt()", *OUR_SCORE
            ),
            "guidance": Row(
                r"\varepsilon(x, y) + s\, ( \varepsilon(x, y) - \varepsilon(x) )",
                "eps_y + s * (eps_y - eps_0)",
                *OUR_GUIDED_EPS,
            ),
        },
    ),
    "gao": Source(
        short="Gao",
        name="Lecture notes: Gao 2024",
        letters={"alpha_bar": "schedule.alpha(t) ** 2", "beta_bar": "schedule.sigma(t) ** 2", "gamma": "w - 1", **PAIR},
        clock="t = {} of T = 1000",
        time=f"{STEPS} * t",
        signal="alpha_bar.sqrt()",
        noise="beta_bar.sqrt()",
        digits=0,
        mind="His β with a bar is 1 − ᾱ, the whole variance of the noise. His γ is our w − 1.",
        weight=("γ = {}", "gamma"),
        rows={
            "marginal": Row(
                r"x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{\bar\beta_t}\, \varepsilon",
                "alpha_bar.sqrt() * x0 + beta_bar.sqrt() * eps",
                *OUR_MARGINAL,
            ),
            "guidance": Row(
                r"(1 + \gamma)\, \varepsilon_\theta(x_t, t, y) - \gamma\, \varepsilon_\theta(x_t, t, \varnothing)",
                "(1 + gamma) * eps_y - gamma * eps_0",
                *OUR_GUIDED_EPS,
            ),
        },
    ),
    "petiushko": Source(
        short="Petiushko, notebook",
        name="Lecture notes: Petiushko 2023, and the notebook",
        letters={
            "alpha_bar": "schedule.alpha(t) ** 2",
            "gamma": "w",
            "score_y": "denoiser(x_t, t, y).score",
            "score": "denoiser(x_t, t).score",
        },
        clock="t = {} of T = 1000",
        time=f"{STEPS} * t",
        signal="alpha_bar.sqrt()",
        noise="(1 - alpha_bar).sqrt()",
        digits=0,
        mind="Their γ is a guidance weight and equals our w; VDM's γ is another. The notebook's code counts steps from 0.",
        weight=("γ = {}", "gamma"),
        rows={
            "marginal": Row(
                r"x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon",
                "alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * eps",
                *OUR_MARGINAL,
            ),
            "guidance": Row(
                r"\gamma\, \nabla \log p(x_t | y) + (1 - \gamma)\, \nabla \log p(x_t)",
                "gamma * score_y + (1 - gamma) * score",
                *OUR_GUIDED_SCORE,
            ),
        },
    ),
}
