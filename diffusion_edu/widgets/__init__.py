"""Interactive figures: ipywidgets in JupyterLab, the same on the built site. They need `pip install anywidget`."""

from diffusion_edu.widgets.base import Widget
from diffusion_edu.widgets.bound_explorer import BoundExplorer
from diffusion_edu.widgets.draw_your_own import DrawYourOwn
from diffusion_edu.widgets.evidence_gap import EvidenceGap
from diffusion_edu.widgets.guidance_lab import GuidanceLab
from diffusion_edu.widgets.guidance_surface import GuidanceSurface
from diffusion_edu.widgets.guided_mixture import GuidedMixture
from diffusion_edu.widgets.likelihood_routes import LikelihoodRoutes
from diffusion_edu.widgets.metric_explorer import MetricExplorer
from diffusion_edu.widgets.partial_noising import PartialNoising
from diffusion_edu.widgets.reverse_family import ReverseFamily
from diffusion_edu.widgets.sampler_race import SamplerRace
from diffusion_edu.widgets.schedule_explorer import ScheduleExplorer
from diffusion_edu.widgets.score_field import ScoreField
from diffusion_edu.widgets.trajectory import Trajectory

__all__ = [
    "DrawYourOwn",
    "EvidenceGap",
    "GuidanceLab",
    "GuidanceSurface",
    "GuidedMixture",
    "ReverseFamily",
    "BoundExplorer",
    "LikelihoodRoutes",
    "MetricExplorer",
    "PartialNoising",
    "SamplerRace",
    "ScheduleExplorer",
    "ScoreField",
    "Trajectory",
    "Widget",
]
