"""What limits a sampler: the number of draws, of steps, or the network. Measured on the mixture in the plane."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any, NamedTuple

import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusion_edu.plotting import COLOURS
from diffusion_edu.widgets.base import StaticFigure, Widget
from diffusion_edu.widgets.reverse_family import one_of

PARTS = {"floor": "#9aa1ab", "steps": COLOURS[1], "network": COLOURS[0]}  # colours, as in the module (a test compares)


class Share(NamedTuple):
    """Mean over seeds, and the standard deviation between them."""

    value: float
    spread: float


class ErrorBudget(Widget):
    """Sliders for the evaluations and for the training of a small network; its distance from data, in parts.

    measured: what `benchmarks/error_budget.py` wrote. Traits: `sampler`; `evaluations`, one of `counts`; `training`, steps
    of training, one of `trained`, or 0 for the exact denoiser. Raises ValueError for any other value, or a missing run.
    """

    sampler = traitlets.Unicode("DDIM").tag(sync=True)
    evaluations = traitlets.Int(10).tag(sync=True)
    training = traitlets.Int(300, help="steps of training; 0 is the exact denoiser").tag(sync=True)
    counts = traitlets.List(help="numbers of evaluations that were measured").tag(sync=True)
    trained = traitlets.List(help="steps of training that were measured, and 0").tag(sync=True)
    distances = traitlets.Dict(help="sampler -> [trained][counts] -> distance for each seed").tag(sync=True)
    floors = traitlets.List(help="for each seed, the mean distance of exact draws").tag(sync=True)
    luck = traitlets.Float(help="standard deviation of one set of exact draws about it").tag(sync=True)
    noise_errors = traitlets.List(help="root mean square error of eps_hat, mean over seeds, for each `trained`").tag(
        sync=True
    )

    def __init__(self, measured: Mapping[str, Any], **traits: Any) -> None:
        settings = measured["settings"]
        trained, seeds = [*settings["training"], 0], range(settings["seeds"])
        runs = {(0 if run["training"] == "exact" else run["training"], run["seed"]): run for run in measured["runs"]}
        for key in ((steps, seed) for steps in trained for seed in seeds):
            if key not in runs:
                raise ValueError(f"no run for training = {key[0] or 'exact'} and seed = {key[1]}")
        groups = split_evenly(measured["floor"], settings["seeds"])
        super().__init__(
            counts=settings["evaluations"],
            trained=trained,
            distances={
                name: [
                    [
                        [runs[steps, seed]["distances"][name][k] for seed in seeds]
                        for k in range(len(settings["evaluations"]))
                    ]
                    for steps in trained
                ]
                for name in settings["samplers"]
            },
            floors=[round(mean(group), 5) for group in groups],
            luck=round(mean(stdev(group) for group in groups), 5),
            noise_errors=[round(mean(runs[steps, seed]["noise_error"] for seed in seeds), 4) for steps in trained],
            **traits,
        )

    @traitlets.validate("sampler", "evaluations", "training")
    def _measured(self, proposal: Any) -> Any:
        name = proposal.trait.name
        allowed = {"sampler": self.distances, "evaluations": self.counts, "training": self.trained}[name]
        return one_of(name, proposal.value, tuple(allowed))

    def at(self, evaluations: int, training: int) -> list[float]:
        """Distances of the chosen sampler, one for each seed."""
        return self.distances[self.sampler][self.trained.index(training)][self.counts.index(evaluations)]

    def split(self, evaluations: int, training: int) -> dict[str, Share]:
        """The distance and its parts: the floor, what the exact denoiser adds to it, what this network adds to that.

        The parts add up to "total" because they are differences: a part may be negative. "more steps" is
        what the distance would lose with as many evaluations as were measured; an exact denoiser would save "network".
        """
        here, exact = self.at(evaluations, training), self.at(evaluations, 0)
        parts = {
            "total": here,
            "floor": self.floors,
            "steps": differences(exact, self.floors),
            "network": differences(here, exact),
            "more steps": differences(here, self.at(self.counts[-1], training)),
        }
        return {name: Share(mean(values), stdev(values)) for name, values in parts.items()}

    def static_figure(self) -> StaticFigure:
        """Draw the distance over the evaluations for each network, and its parts at the chosen number of evaluations."""
        figure = Figure(figsize=(7.4, 3.4))
        curves, bars = figure.subplots(1, 2, width_ratios=(1.2, 1))
        self.draw_curves(curves)
        self.draw_bars(bars)
        return StaticFigure(figure, self.alt())

    def draw_curves(self, ax: Axes) -> None:
        """Draw one curve for each network, bars of one standard deviation over seeds, and the floor."""
        low, high = mean(self.floors) - self.luck, mean(self.floors) + self.luck
        ax.axhspan(low, high, color=PARTS["floor"], alpha=0.3, lw=0)
        for i, steps in enumerate(self.trained):
            shares = [self.split(n, steps)["total"] for n in self.counts]
            style = {"color": "black", "ls": "--"} if steps == 0 else {"color": COLOURS[i % len(COLOURS)]}
            values, spreads = [s.value for s in shares], [s.spread for s in shares]
            ax.errorbar(self.counts, values, spreads, lw=1.4, label=f"{steps:,}" if steps else "exact", **style)
        ax.set(xscale="log", yscale="log", xlabel="evaluations", title=f"{self.sampler}: distance from data")
        ticks = [n for n in self.counts if n in (2, 5, 10, 20, 60)]
        ax.set_xticks(ticks, [str(n) for n in ticks])
        ax.set_yticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
        ax.minorticks_off()
        ax.legend(fontsize=7, title="training steps", title_fontsize=7, ncols=2)

    def draw_bars(self, ax: Axes) -> None:
        """Draw the parts for each network, on top of each other."""
        names = [f"{steps:,}" if steps else "exact" for steps in self.trained]
        splits = [self.split(self.evaluations, steps) for steps in self.trained]
        left = [0.0] * len(names)
        for part, colour in PARTS.items():
            widths = [split[part].value for split in splits]
            ax.barh(names, widths, left=left, color=colour, label=part)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        ax.set(title=f"its parts at {self.evaluations} evaluations", ylabel="training steps")
        ax.grid(axis="y", visible=False)
        ax.legend(fontsize=8)

    def alt(self) -> str:
        """What the static figure shows, with the chosen cell's numbers."""
        found = self.split(self.evaluations, self.training)
        network = f"a network trained for {self.training} steps" if self.training else "the exact denoiser"
        return (
            f"Left, the distance of {self.sampler}'s samples from data against evaluations: networks trained for a thousand "
            f"steps and more lie far lower than the others, each curve is flat where its network is the limit; the exact "
            f"denoiser's falls to the floor. Right, "
            f"stacked bars: with {self.evaluations} evaluations and {network} the distance {found['total'].value:.3f} is "
            f"{found['floor'].value:.3f} floor, {found['steps'].value:.3f} steps and {found['network'].value:.3f} network."
        )


def split_evenly(values: list[float], parts: int) -> list[list[float]]:
    """A list in as many equally long pieces; ValueError where that leaves a rest."""
    if not values or len(values) % parts:
        raise ValueError(f"need the same number of floors for each of {parts} seeds, got {len(values)}")
    size = len(values) // parts
    return [values[i * size : (i + 1) * size] for i in range(parts)]


def differences(left: list[float], right: list[float]) -> list[float]:
    """left - right, seed by seed."""
    return [a - b for a, b in zip(left, right, strict=True)]
