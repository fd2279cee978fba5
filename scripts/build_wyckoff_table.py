"""Regenerate autoperi/wyckoff.npz from pyxtal's positions and moyo's operations (deterministic)."""

from pathlib import Path

import autoperi.wyckoff
from autoperi.wyckoff_build import build_wyckoff_arrays

if __name__ == "__main__":
    import numpy as np

    path = Path(autoperi.wyckoff.__file__).with_name("wyckoff.npz")
    np.savez_compressed(path, allow_pickle=False, **build_wyckoff_arrays())
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
