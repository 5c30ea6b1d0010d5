"""How a patient was scanned: geometry, kernel, noise, and what the header says of the device."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.phantom.anatomy import AIR_HU, Floats


@dataclass(frozen=True)
class Kernel:
    """A reconstruction kernel: blur (pixels), noise (HU) and its grain (pixels)."""

    name: str
    blur: float
    noise_hu: float
    grain: float


@dataclass(frozen=True)
class Scan:
    """One acquisition; lengths in mm. `padding` is the stored value outside the field of view, if any."""

    manufacturer: str
    model_name: str
    kernel: Kernel
    kvp: int
    pixel_spacing: float
    slice_spacing: float
    intercept: int
    padding: int | None
    table_y: float


_DEVICES = (
    ("GE MEDICAL SYSTEMS", "Optima CT660", ("LUNG", "STANDARD"), -1024, -2000),
    ("SIEMENS", "SOMATOM Definition", ("B70f", "B40f"), -1024, None),
    ("Philips", "Brilliance 64", ("L", "B"), -1000, None),
    ("TOSHIBA", "Aquilion", ("FC52", "FC13"), 0, None),
)


def draw_scan(rng: np.random.Generator) -> Scan:
    """Draw a scanner and a protocol at random."""
    manufacturer, model_name, (sharp, soft), intercept, padding = _DEVICES[rng.integers(len(_DEVICES))]
    if rng.random() < 0.6:
        kernel = Kernel(sharp, blur=rng.uniform(0.35, 0.6), noise_hu=rng.uniform(25, 55), grain=0.5)
    else:
        kernel = Kernel(soft, blur=rng.uniform(0.7, 1.0), noise_hu=rng.uniform(8, 20), grain=1.1)
    return Scan(
        manufacturer=manufacturer,
        model_name=model_name,
        kernel=kernel,
        kvp=int(rng.choice([100, 120, 140])),
        pixel_spacing=round(float(rng.uniform(0.70, 0.88)), 4),
        slice_spacing=float(rng.choice([5.0, 7.0, 8.0, 10.0])),
        intercept=intercept,
        padding=padding,
        table_y=float(rng.uniform(-12, 12)),
    )


def reconstruct(hu: Floats, scan: Scan, rng: np.random.Generator) -> Floats:
    """Return the slice (rows, columns) as this scanner shows it: blurred, with grainy noise, in HU."""
    image = ndimage.gaussian_filter(hu, scan.kernel.blur)
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), scan.kernel.grain)
    # Air outside the body is quieter than the body itself.
    strength = np.where(hu <= AIR_HU, 0.35, 1.0) * scan.kernel.noise_hu / noise.std()
    result: Floats = np.clip(image + noise * strength, -1024, 3071).astype(np.float32)
    return result
