"""Interactive figures: ipywidgets in JupyterLab, the same on the built site. They need `pip install anywidget`."""

from diffusion_edu.widgets.base import Widget
from diffusion_edu.widgets.likelihood_routes import LikelihoodRoutes
from diffusion_edu.widgets.schedule_explorer import ScheduleExplorer
from diffusion_edu.widgets.trajectory import Trajectory

__all__ = [
    "LikelihoodRoutes",
    "ScheduleExplorer",
    "Trajectory",
    "Widget",
]
