"""ACDIS platform: experiments and ablations for brain-tumour segmentation with missing MRI modalities."""

from acdis.version import __version__

__all__ = ["__version__"]
