"""Which torch devices can hold crystals: those that know float64."""

import torch


def usable_device(name: str) -> str:
    """The name of a device on which crystals and networks can lie, as given.

    Raises:
        ValueError: no such device, none of it here, or one without float64, in which symmetry is kept.
    """
    choice = "use cpu, cuda or cuda:N"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"expected a device: got {name!r}; {choice}") from error
    if device.type == "mps":
        raise ValueError(f"expected a device with float64, which keeps the symmetry: mps has none; {choice}")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"expected a device: got {name!r}, which is not supported; {choice}")
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise ValueError(f"expected CUDA for the device {name!r}: torch finds {found} here; use cpu")
    return name
