"""Networks: a U-Net for images, a small MLP for points in the plane, classifiers, a VAE."""

from diffusion_edu.networks.classifier import Classifier, NoisyClassifier, PhotoClassifier
from diffusion_edu.networks.mlp import MLP
from diffusion_edu.networks.unet import UNet
from diffusion_edu.networks.vae import VAE
from diffusion_edu.networks.variance import VarianceHead

__all__ = ["MLP", "VAE", "Classifier", "NoisyClassifier", "PhotoClassifier", "UNet", "VarianceHead"]
