"""Interactive figures: ipywidgets in JupyterLab, the same on the built site. They need `pip install anywidget`."""

from diffusion_edu.widgets.base import Widget
from diffusion_edu.widgets.bound_explorer import BoundExplorer
from diffusion_edu.widgets.convention_translator import ConventionTranslator
from diffusion_edu.widgets.draw_your_own import DrawYourOwn
from diffusion_edu.widgets.error_budget import ErrorBudget
from diffusion_edu.widgets.evidence_gap import EvidenceGap
from diffusion_edu.widgets.four_predictions import FourPredictions
from diffusion_edu.widgets.guidance_lab import GuidanceLab
from diffusion_edu.widgets.guidance_surface import GuidanceSurface
from diffusion_edu.widgets.guided_mixture import GuidedMixture
from diffusion_edu.widgets.likelihood_routes import LikelihoodRoutes
from diffusion_edu.widgets.metric_explorer import MetricExplorer
from diffusion_edu.widgets.partial_noising import PartialNoising
from diffusion_edu.widgets.posterior_explorer import PosteriorExplorer
from diffusion_edu.widgets.reverse_family import ReverseFamily
from diffusion_edu.widgets.sampler_frontier import SamplerFrontier
from diffusion_edu.widgets.sampler_race import SamplerRace
from diffusion_edu.widgets.schedule_explorer import ScheduleExplorer
from diffusion_edu.widgets.score_field import ScoreField
from diffusion_edu.widgets.solver_steps import SolverSteps
from diffusion_edu.widgets.training_film import TrainingFilm
from diffusion_edu.widgets.trajectory import Trajectory

__all__ = [
    "ErrorBudget",
    "DrawYourOwn",
    "EvidenceGap",
    "FourPredictions",
    "GuidanceLab",
    "GuidanceSurface",
    "GuidedMixture",
    "ReverseFamily",
    "BoundExplorer",
    "ConventionTranslator",
    "LikelihoodRoutes",
    "MetricExplorer",
    "PartialNoising",
    "PosteriorExplorer",
    "SamplerFrontier",
    "SamplerRace",
    "ScheduleExplorer",
    "ScoreField",
    "SolverSteps",
    "TrainingFilm",
    "Trajectory",
    "Widget",
]
