# SPDX-License-Identifier: Apache-2.0
"""Patients that never lived: brains made from a public template, with a known truth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from monai_cadp.data.brain_template import BRAIN_CENTRE, brain_template, interpolate, millimetres

__all__ = ["BrainCohort"]

# Warps are smooth between control points, and are computed on this grid whatever the scans' is, so that a patient's
# anatomy is the same at every resolution.
WARP_SHAPE, WARP_SPACING = (24, 30, 24), 7.2
CONTROL_POINTS = (6, 7, 6)
SQUARINGS = 4
# Standard deviations between patients; lengths in millimetres.
WARP = 3.0
SIZE, STRETCH = 0.05, 0.03
VENTRICLES, CORTEX, ASYMMETRY = 4.0, 1.0, 3.0
# Standard deviations between scans of one patient.
SHIFT, ANGLE = 1.5, 0.03
GAMMA, BIAS, CONTRAST, NOISE = 0.08, 0.06, 0.05, 0.02
# From the middle of the brain to its side, in millimetres.
HALF_WIDTH = 70
LESION_RADIUS = (8.0, 13.0)
LESION_INTENSITY = 0.35


class BrainCohort(Dataset):
    r"""T1 volumes of made-up patients, half of them with a lesion, several scans of each.

    A patient is an anatomy: the public template under a smooth diffeomorphic warp (a stationary velocity field,
    integrated by scaling and squaring), with a size, a stretch along each axis, ventricles, a cortex and an asymmetry
    of its own, and with or without a lesion in the white matter. A scan adds a position, a contrast, a bias field and
    noise. Everything follows from ``seed``, the patient's and the scan's number, in whatever order items are read.

    Args:
        seed: names the cohort; cohorts of different seeds have no patient in common.
        num_patients: patients; with even numbers they are healthy, with odd ones they have a lesion.
        num_scans: scans of every patient.
        spatial_shape: voxels from left to right, back to front and bottom to top.
        spacing: of the voxels, in millimetres.

    Raises:
        ValueError: if a number is not positive.

    Example:
        >>> cohort = BrainCohort(seed=0, num_patients=2, num_scans=2, spatial_shape=(24, 30, 24), spacing=6.8)
        >>> len(cohort), cohort[3]["image"].shape, int(cohort[3]["label"]), cohort[3]["subject"], cohort[3]["item"]
        (4, torch.Size([1, 24, 30, 24]), 1, 'patient 1', 'scan 1')
    """

    def __init__(
        self,
        seed: int = 0,
        num_patients: int = 1000,
        num_scans: int = 1,
        spatial_shape: Sequence[int] = (48, 60, 48),
        spacing: float = 3.6,
    ) -> None:
        if min(num_patients, num_scans, *spatial_shape) < 1 or not spacing > 0 or len(spatial_shape) != 3:
            raise ValueError(
                f"A cohort was asked for with {num_patients} patients, {num_scans} scans, the sizes "
                f"{tuple(spatial_shape)} and the spacing {spacing}; expected positive numbers and three sizes."
            )
        self.seed, self.num_patients, self.num_scans = seed, num_patients, num_scans
        self.spatial_shape, self.spacing = (spatial_shape[0], spatial_shape[1], spatial_shape[2]), spacing

    def __len__(self) -> int:
        """Return the number of scans."""
        return self.num_patients * self.num_scans

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        """Make one scan; returns it with its label (1 for a lesion), patient and number."""
        if not 0 <= index < len(self):
            raise IndexError(f"The cohort has no scan {index}; it has {len(self)}.")
        patient, scan = divmod(index, self.num_scans)
        label = patient % 2
        with torch.no_grad():
            image = self._scan(patient, scan, label)
        return {
            "image": image,
            "label": torch.tensor(label),
            "subject": f"patient {patient}",
            "item": f"scan {scan}",
        }

    def _scan(self, patient: int, scan: int, label: int) -> Tensor:
        anatomy = _normal(self.seed, patient, 0)
        acquisition = _normal(self.seed, patient, 1 + scan)
        places = millimetres(self.spatial_shape, self.spacing)
        places = _moved(places, acquisition)
        places = self._warped(places, anatomy)
        template = brain_template(self.spatial_shape, self.spacing)
        tissues = torch.cat([template.t1, template.white])
        t1, white = _at(tissues, places, self.spacing).split(1)
        if label:
            t1 = self._with_lesion(t1, places, anatomy)
        return _acquired(t1, white, acquisition)

    def _warped(self, places: Tensor, anatomy: np.random.Generator) -> Tensor:
        """Return where in the template each voxel comes from."""
        size = 1 + SIZE * anatomy.standard_normal() + STRETCH * torch.from_numpy(anatomy.standard_normal(3)).float()
        control = WARP * torch.from_numpy(anatomy.standard_normal((1, 3, *CONTROL_POINTS))).float()
        velocity = functional.interpolate(control, WARP_SHAPE, mode="trilinear", align_corners=True)[0]
        ventricles, cortex, asymmetry = anatomy.standard_normal(3)
        outward_ventricles, outward_cortex, sideways = _named_velocities()
        velocity = velocity + VENTRICLES * float(ventricles) * outward_ventricles
        velocity = velocity + CORTEX * float(cortex) * outward_cortex + ASYMMETRY * float(asymmetry) * sideways
        displacement = velocity / 2**SQUARINGS
        grid = millimetres(WARP_SHAPE, WARP_SPACING)
        for _ in range(SQUARINGS):
            displacement = displacement + _at(displacement, grid + displacement, WARP_SPACING)
        centre = torch.tensor(BRAIN_CENTRE).reshape(3, 1, 1, 1)
        places = (places - centre) / size.reshape(3, 1, 1, 1) + centre
        return places + _at(displacement, places, WARP_SPACING)

    def _with_lesion(self, t1: Tensor, places: Tensor, anatomy: np.random.Generator) -> Tensor:
        """Draw a dark, soft-edged, slightly irregular ball somewhere in the white matter of the template's space."""
        candidates = _deep_white_matter()
        centre = candidates[int(anatomy.integers(len(candidates)))].reshape(3, 1, 1, 1)
        radius = float(anatomy.uniform(*LESION_RADIUS))
        axes = 1 + 0.2 * torch.from_numpy(anatomy.standard_normal(3)).float().clamp(-1.5, 1.5).reshape(3, 1, 1, 1)
        distance = ((places - centre) / axes).norm(dim=0, keepdim=True)
        share = torch.sigmoid((radius - distance) / 1.5) * (t1 > 0.3)
        return t1 * (1 - share) + LESION_INTENSITY * share


@lru_cache(maxsize=1)
def _deep_white_matter() -> Tensor:
    """Places (n, 3) in millimetres where a lesion may be."""
    white = _smooth(brain_template(WARP_SHAPE, WARP_SPACING).white, 1)[0]
    return millimetres(WARP_SHAPE, WARP_SPACING)[:, white > 0.6].T


@lru_cache(maxsize=1)
def _named_velocities() -> tuple[Tensor, Tensor, Tensor]:
    """Velocities (3, X, Y, Z) of largest length 1: towards the ventricles, into the cortex, and out of one hemisphere
    but into the other."""
    template = brain_template(WARP_SHAPE, WARP_SPACING)
    places = millimetres(WARP_SHAPE, WARP_SPACING)
    brain = (template.t1 > 0.05).float()
    sideways = torch.zeros_like(places)
    sideways[0] = (places[0] / HALF_WIDTH).square().clamp(max=1) * _smooth(brain, 2)[0]
    return (
        _unit(-_gradient(_smooth(template.ventricles, 2)[0])),
        _unit(-_gradient(_smooth(template.gray, 1)[0] - _smooth(template.gray, 3)[0])),
        _unit(sideways),
    )


def _moved(places: Tensor, acquisition: np.random.Generator) -> Tensor:
    """Shift and turn the patient in the scanner."""
    shift = SHIFT * torch.from_numpy(acquisition.standard_normal(3)).float().reshape(3, 1, 1, 1)
    a, b, c = (ANGLE * acquisition.standard_normal(3)).tolist()
    turn = torch.linalg.matrix_exp(torch.tensor([[0.0, a, b], [-a, 0.0, c], [-b, -c, 0.0]]))
    centre = torch.tensor(BRAIN_CENTRE).reshape(3, 1, 1, 1)
    return torch.einsum("ij,jxyz->ixyz", turn, places - centre) + centre + shift


def _acquired(t1: Tensor, white: Tensor, acquisition: np.random.Generator) -> Tensor:
    """Give a scan its contrast, bias field and noise; the background stays dark."""
    gamma, contrast = acquisition.standard_normal(2)
    image = t1.clamp(0, 1) ** float(np.exp(GAMMA * gamma)) + CONTRAST * float(contrast) * (white - 0.5) * (t1 > 0.05)
    field = BIAS * torch.from_numpy(acquisition.standard_normal((1, 1, 3, 3, 3))).float()
    image = image * functional.interpolate(field, t1.shape[1:], mode="trilinear", align_corners=True)[0].exp()
    noise = NOISE * torch.from_numpy(acquisition.standard_normal((2, *t1.shape[1:]), dtype=np.float32))
    # Magnitudes of complex noise (Rice), as a scanner gives them.
    return (0.9 * ((image.clamp(min=0) + noise[:1]).square() + noise[1:].square()).sqrt()).clamp(0, 1)


def _normal(seed: int, patient: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, patient, stream])))


def _at(image: Tensor, places: Tensor, spacing: float) -> Tensor:
    """Interpolate (C, X, Y, Z), given around the middle of the brain, at places in millimetres (3, ...)."""
    middle = (torch.tensor(image.shape[1:], dtype=torch.float32).reshape(3, 1, 1, 1) - 1) / 2
    centre = torch.tensor(BRAIN_CENTRE).reshape(3, 1, 1, 1)
    return interpolate(image, (places - centre) / spacing + middle, outside="border")


def _smooth(image: Tensor, times: int) -> Tensor:
    for _ in range(times):
        image = functional.avg_pool3d(image[None], 3, 1, 1)[0]
    return image


def _gradient(image: Tensor) -> Tensor:
    return torch.stack(torch.gradient(image))


def _unit(field: Tensor) -> Tensor:
    return field / field.norm(dim=0).max()
