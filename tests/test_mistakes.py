"""Slips of the hand: what would give a number that means nothing is refused, in one line that names what came."""

import math

import matplotlib.pyplot as plt
import pytest
import torch

from diffusion_edu import checkpoints, film, metrics, plotting, training
from diffusion_edu.analytic import GaussianMixture, LinearGaussian, empirical_denoiser
from diffusion_edu.denoisers import Denoiser
from diffusion_edu.guidance import classifier_free, classifier_guided
from diffusion_edu.losses import (
    denoising_loss,
    denoising_score_matching,
    loss_weight,
    spread_times,
    target_value,
    x0_factor,
)
from diffusion_edu.networks import MLP, VAE, Classifier, NoisyClassifier, UNet
from diffusion_edu.process import Prediction, posterior, q_sample
from diffusion_edu.samplers import (
    adaptive_solve,
    ancestral,
    ddim,
    edm,
    evaluations,
    inpaint,
    langevin,
    sample,
    steps_within,
)
from diffusion_edu.schedules import Cosine, LinearBeta, Schedule, linear_betas, time_at_log_snr, time_grid

COSINE, HALF = Cosine(), torch.tensor(0.5)
CHAIN = Schedule.from_betas(linear_betas(1000))
MIXTURE = GaussianMixture(torch.tensor([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), 0.3)
DENOISER = MIXTURE.denoiser(COSINE)
POINTS = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
STORED = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
FACTORS = LinearGaussian(torch.ones(3, 2), torch.zeros(3), 0.5)


def unet():
    torch.manual_seed(0)
    return UNet(channels=(8,), num_classes=3, embedding=8, attention=False)


MISTAKES = {
    "stored images, noised": (
        lambda: q_sample(COSINE, STORED, HALF, STORED),
        r"x must be floating-point \(of stored images: data.to_float\), got torch.uint8",
    ),
    "stored images, in the loss": (
        lambda: denoising_loss(Denoiser(unet(), COSINE), STORED, HALF.expand(4), STORED),
        "floating-point",
    ),
    "stored images, in a target": (lambda: target_value(COSINE, STORED, HALF, STORED, "v"), "floating-point"),
    "stored images, in a posterior": (lambda: posterior(COSINE, STORED, STORED, HALF, HALF / 2), "floating-point"),
    "stored images, as points": (
        lambda: metrics.precision_recall(STORED.flatten(1), STORED.flatten(1)),
        "points must be",
    ),
    "whole numbers in a mixture": (lambda: MIXTURE.score(torch.ones(4, 2, dtype=torch.int64)), "points must be"),
    "a mixture of whole numbers": (lambda: GaussianMixture(torch.tensor([[-2], [2]]), 1.5), "means must be"),
    "whole numbers in score matching": (
        lambda: denoising_score_matching(lambda x: -x, torch.ones(4, 2, dtype=torch.int64), 1.5, torch.ones(4, 2)),
        "floating-point",
    ),
    "whole numbers for a log-SNR": (lambda: time_at_log_snr(COSINE, torch.arange(-4, 5)), "log_snr must be floating"),
    "steps for times, in a posterior": (
        lambda: posterior(CHAIN, POINTS, POINTS, torch.tensor(500.0), torch.tensor(499.0)),
        r"times must lie in \[0, 1\], got 499 to 500",
    ),
    "steps for times, in a chain": (
        lambda: CHAIN.alpha(torch.arange(1000)),
        r"t = k / T must lie in \[0, 1\], got 0 to 999",
    ),
    "steps for times, in a prediction": (
        lambda: Prediction(CHAIN, POINTS, torch.tensor(500), POINTS),
        r"\[0, 1\], got 500",
    ),
    "a time for each of other points": (
        lambda: Prediction(COSINE, POINTS, HALF.expand(3), POINTS),
        r"\(4,\), got \(3,\)",
    ),
    "a number for a time": (lambda: DENOISER(POINTS, 0.5), "t must be a tensor, got 0.5"),
    "steps for a grid": (lambda: sample(ddim(DENOISER, POINTS, 50)), r"such as time_grid\(schedule, steps\), got 50"),
    "steps for a grid, ancestral": (lambda: ancestral(DENOISER, POINTS, 50), "a time grid is a tensor"),
    "a list for a grid": (lambda: edm(DENOISER, POINTS, [1.0, 0.0]), "a time grid is a tensor"),
    "labels with a half": (lambda: DENOISER(POINTS, HALF, torch.full((4,), 0.5)), "whole numbers, got torch.float32"),
    "a label alone": (lambda: DENOISER(POINTS, HALF, 3), "a tensor of whole numbers, got 3"),
    "one label for four points": (
        lambda: classifier_free(DENOISER, 2.0)(POINTS, HALF, torch.tensor([1])),
        r"must have shape \(4,\), .* got \(1,\)",
    ),
    "no class, asked of a classifier": (
        lambda: classifier_guided(DENOISER, MIXTURE.classifier(COSINE), 1.0)(POINTS, HALF, torch.full((4,), 3)),
        r"labels must lie in 0 ... 2, got 3 to 3",
    ),
    "no class, asked of a network": (
        lambda: NoisyClassifier(width=8, features=8, embedding=8).log_p_y(
            torch.zeros(2, 1, 28, 28), HALF, torch.tensor([1, 10])
        ),
        "0 ... 9, got 1 to 10",
    ),
    "classes of a data set's denoiser": (
        lambda: empirical_denoiser(POINTS, COSINE)(POINTS, HALF, torch.zeros(4, dtype=torch.int64)),
        "knows no classes",
    ),
    "a score of another shape": (
        lambda: sample(langevin(lambda x: -x[:, 0], torch.randn(5, 1), 0.1, 3)),
        r"a score has the shape of x, \(5, 1\), got \(5,\)",
    ),
    "a mask of one number an image": (
        lambda: inpaint(DENOISER, POINTS, time_grid(COSINE, 4), POINTS, torch.ones(4)),
        r"known and mask must fit x_T, \(4, 2\), got \(4, 2\) and \(4,\)",
    ),
    "labels in a column": (
        lambda: metrics.accuracy(torch.arange(10), torch.arange(10)[:, None]),
        r"a label for each image, \(10,\), got \(10, 1\)",
    ),
    "images without channels": (
        lambda: VAE(latent=2).decode(torch.zeros(4, 2)).log_prob(STORED[:, 0]),
        r"got \(4, 28, 28\)",
    ),
    "labels of all images for some": (
        lambda: next(
            training.fit_classifier(Classifier(width=4, features=8), STORED, torch.zeros(9, dtype=torch.int64))
        ),
        r"labels must have shape \(4,\), one for each image, got \(9,\)",
    ),
    "labels from 1": (
        lambda: next(
            training.fit(
                training.Run(Denoiser(unet(), COSINE), training.TrainConfig(steps=1, batch=2)),
                STORED,
                torch.tensor([1, 2, 3, 1]),
            )
        ),
        "labels must lie in 0 ... 2, got 1 to 3",
    ),
    "the weight for the target": (lambda: loss_weight(COSINE, HALF, "min-snr"), "unknown target 'min-snr'; known: eps"),
    "an unknown target": (lambda: target_value(COSINE, POINTS, HALF, POINTS, "noise"), "unknown target 'noise'"),
    "an unknown target's factor": (lambda: x0_factor(COSINE, HALF, "noise"), "unknown target 'noise'"),
    "a sampler's class for its name": (lambda: evaluations("Heun", 10), "unknown sampler 'Heun'; known: analytic"),
    "another sampler's name": (lambda: steps_within("EDM", 10), "unknown sampler 'EDM'"),
    "points of another width": (lambda: FACTORS.posterior(torch.zeros(2, 1)), r"\(N, 3\), got \(2, 1\)"),
    "a covariance that is none": (
        lambda: FACTORS.elbo(torch.zeros(2, 3), torch.zeros(2), -torch.eye(2)),
        "covariance must be symmetric and positive",
    ),
    "a gap below 0": (
        lambda: plotting.image_grid(torch.zeros(4, 1, 2, 2), 2, gap=-1),
        "gap must be at least 0, got -1",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named(name):
    call, said = MISTAKES[name]
    with pytest.raises(ValueError, match=said) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_a_sampler_that_was_run_has_no_second_sample():
    steps = ddim(DENOISER, POINTS, time_grid(COSINE, 4))
    sample(steps)
    with pytest.raises(ValueError, match="has been run to its end"):
        sample(steps)


def test_a_slope_without_a_number_stops_the_solver():
    with pytest.raises(FloatingPointError, match="RK45 stopped at t = 0.1 on the way to 1: the slope is not finite"):
        adaptive_solve(lambda x, t: x * math.nan, torch.ones(2, 2), 0.1, 1.0)


def test_a_fact_that_json_does_not_know_costs_no_checkpoint(tmp_path):
    spec = {"class": "MLP", "arguments": {"width": 8}}
    torch.manual_seed(0)
    checkpoints.save(tmp_path, MLP(width=8), spec, schedule={"name": "LinearBeta"}, target="eps")
    kept = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="a manifest holds numbers, strings, lists and dictionaries: .*Tensor"):
        checkpoints.save(tmp_path, MLP(width=8), spec, loss=torch.tensor(0.1))
    assert (tmp_path / "model.safetensors").read_bytes() == kept
    checkpoints.load(tmp_path)
    with pytest.raises(ValueError, match="a manifest holds"):
        checkpoints.save(tmp_path / "new", MLP(width=8), spec, loss=torch.tensor(0.1))
    assert not (tmp_path / "new").exists()


def test_a_judge_that_is_in_training_judges_and_stays_as_it_was():
    torch.manual_seed(0)
    classifier = Classifier(width=4, features=8)
    images = torch.rand(40, 1, 28, 28) * 2 - 1
    wanted = metrics.judge(classifier.eval(), images)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    found = metrics.judge(classifier.train(), images)
    assert classifier.training
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_a_frame_leaves_the_run_in_its_mode():
    run = training.Run(Denoiser(unet(), COSINE, "v"), training.TrainConfig(steps=2, batch=2))
    for training_mode in (True, False):
        run.denoiser.train(training_mode)
        film.draw_frame(run, (1, 8, 8))
        assert run.denoiser.training is training_mode


def test_times_do_not_depend_on_the_default_type():
    wanted = spread_times(COSINE, 5, torch.Generator().manual_seed(0))
    torch.set_default_dtype(torch.float64)
    try:
        found = spread_times(COSINE, 5, torch.Generator().manual_seed(0))
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert torch.equal(found, wanted)


def test_whole_times_of_a_chain_are_exact():
    ends = CHAIN.alpha(torch.tensor([0, 1]))
    torch.testing.assert_close(ends, CHAIN.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)))


def test_images_without_a_gap_fill_the_picture():
    picture = plotting.image_grid(torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 1, 2, 2) / 4, 2, gap=0)
    assert picture.shape == (4, 4)


def test_eight_methods_have_eight_curves():
    rows = [{"method": f"m{k}", "t": t, "score": (k, 0.1)} for k in range(8) for t in (0.2, 0.4)]
    fig, ax = plt.subplots()
    plotting.curves_by_method(ax, rows, "score")
    assert len(ax.containers) == 8
    plt.close(fig)


def test_a_linear_beta_schedule_is_no_chain():
    """Continuous schedules take every time; a whole number is one, too."""
    assert float(LinearBeta().alpha(torch.tensor(0))) == 1
