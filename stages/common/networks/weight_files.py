"""Weights by file path: state dicts (.pth, .pt, .safetensors) and Keras files (.h5).

No file is unpickled beyond tensors, none is downloaded.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Float32
from safetensors.torch import load_file
from torch import Tensor, nn

from stages.common.errors import InputError, cause


def packaged_file(package: str, inside: str, *, remedy: str) -> Path:
    """Find a data file of an installed package without importing the package.

    Raises
    ------
    InputError
        If the package or the file is not there.
    """
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (path := Path(folder) / inside).is_file():
            return path
    raise InputError(
        f"package {package}",
        "does not give its weights",
        expected=f"the file {inside}",
        found="a package without it" if spec else "no such package",
        remedy=remedy,
    )


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict {name: tensor} from a .pth, .pt or .safetensors file, onto the CPU.

    Raises
    ------
    InputError
        If the file is missing, damaged, holds objects other than tensors, or ends otherwise.
    """
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise _unusable(path, "a .pth, .pt or .safetensors file", f"a {path.suffix or 'nameless'}")
    if not path.is_file():
        raise _unusable(path, "a readable file", "none")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and safetensors raise many kinds on damaged files
        raise _unusable(path, "tensors by name", f"({cause(error)[:120]})") from error
    if isinstance(state, Mapping) and all(isinstance(v, Tensor) for v in state.values()):
        return dict(state)
    raise _unusable(path, "tensors by name", f"a {type(state).__name__} of something else")


def read_keras_convs(
    path: Path, names: list[str]
) -> dict[str, tuple[Float32[Tensor, "o i k k"], Float32[Tensor, " o"]]]:
    """Read convolutions' kernels and biases from a Keras file, in torch's axis order.

    A layer is a group that is called by its name (Keras 2) or has it as attribute ``name``
    (Keras 3); below it lie one array of four axes, height x width x in x out, and one of one axis.

    Raises
    ------
    InputError
        If the file is missing or damaged, or a layer is not in it.
    """
    if not path.is_file():
        raise _unusable(path, "a readable file", "none")
    groups: dict[str, h5py.Group] = {}

    def note(place: str, item: object) -> None:
        if isinstance(item, h5py.Group):
            groups.setdefault(place.rsplit("/", 1)[-1], item)
            groups[str(item.attrs.get("name", place))] = item

    layers = {}
    try:
        with h5py.File(path) as file:
            file.visititems(note)
            for name in names:
                arrays = _arrays(groups[name]) if name in groups else []
                by_axes = {array.ndim: array for array in arrays}
                if len(arrays) != 2 or set(by_axes) != {1, 4}:
                    shapes = [array.shape for array in arrays] or "none"
                    raise _unusable(path, f"kernel and bias of the layer {name!r}", shapes)
                kernel = torch.from_numpy(by_axes[4]).permute(3, 2, 0, 1).contiguous()
                layers[name] = (kernel, torch.from_numpy(by_axes[1]))
    except InputError:
        raise
    except Exception as error:  # h5py raises many kinds on damaged files
        raise _unusable(path, "a Keras HDF5 file", f"({cause(error)})") from error
    return layers


def _arrays(group: h5py.Group) -> list[np.ndarray]:
    found = []

    def note(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(np.asarray(item, np.float32))

    group.visititems(note)
    return found


def load_state(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load ``state`` into ``net``: every key and every shape must match.

    Raises
    ------
    InputError
        If a tensor is missing, unknown, of another shape or kind, or not finite; the first one is
        named.
    """
    wanted = net.state_dict()
    for name in [*wanted, *state]:
        expected = tuple(wanted[name].shape) if name in wanted else "no such tensor"
        found = tuple(state[name].shape) if name in state else "none"
        if expected != found:
            raise _unusable(path, f"{expected} for {name!r}", found)
        if wanted[name].is_floating_point() != state[name].is_floating_point():
            raise _unusable(path, f"{wanted[name].dtype} for {name!r}", state[name].dtype)
        if not torch.isfinite(state[name]).all():
            raise _unusable(path, f"finite numbers in {name!r}", "NaN or infinity")
    net.load_state_dict(state)


def _unusable(path: Path, expected: object, found: object) -> InputError:
    return InputError(
        path,
        "cannot be used as weights",
        expected=expected,
        found=found,
        remedy="give the path of the weights that the parameter's comment names",
    )
