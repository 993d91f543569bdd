"""pyrnn's own files: a layer, a model or a net, and what makes its like, in one safetensors file."""

from __future__ import annotations

import os
from typing import Any

from ..associative.dense import DenseHopfield
from ..associative.hopfield import Hopfield
from ..associative.modern import ModernHopfield
from ..core import files
from ..core.checks import cut, file_name, shown
from ..core.config import made
from ..core.layer import Layer, at_most

KIND, VERSION = "model", 1  # version 1: type and config of a class of the library, or `unmade`, why there are none
NETS: dict[str, Any] = {kind.__name__: kind for kind in (DenseHopfield, Hopfield, ModernHopfield)}


def save(path: str | os.PathLike[str], model: Any) -> None:
    """Write a layer, a model or an associative net to the safetensors file `path`, atomically.

    Parameters have the names of `state_dict()`; what makes the like of the model, its type and `config()`, is in the
    metadata under "pyrnn". Of a class of your own, and of a model with a layer of such a class, the values alone are
    written, for `load(path, into=model)`. TypeError for what is no model, OSError where it cannot be written; what
    was at `path` is then as it was.

        pyrnn.save("tagger.safetensors", model)
        model = pyrnn.load("tagger.safetensors")
    """
    from ..app import charmodel

    if isinstance(model, (DenseHopfield, Hopfield, ModernHopfield)):
        model.save(path)
    elif isinstance(model, charmodel.CharModel):
        charmodel.save_model(path, model, {})
    elif isinstance(model, Layer):
        files.save(path, model.state_dict(), {"kind": KIND, "version": VERSION} | _makings(model))
    else:
        raise TypeError(f"save: model is {shown(model)}, expected a layer, a model or an associative net")


def _makings(model: Layer) -> dict[str, Any]:
    import pyrnn

    name = type(model).__name__
    try:
        if name in pyrnn.__all__ and getattr(pyrnn, name) is type(model):
            return {"type": name, "config": model.config()}
        reason = f"{name} is not pyrnn's"
    except TypeError as error:  # of a layer inside
        reason = str(error)
    return {"unmade": reason}


def load(path: str | os.PathLike[str], *, into: Any = None) -> Any:
    """What `save` wrote: a new layer, model or net; or `into`, a model that is there, with the values of the file.

    OSError or ValueError that names the file, for one that is missing, damaged, of another system or a later version,
    and for one whose parameters are not those of `into`, which then is as it was. ValueError without `into` where the
    file holds the values of a class of your own. Nothing that the file holds is run.

        model = pyrnn.load("tagger.safetensors")
        mine = pyrnn.load("mine.safetensors", into=Tagger(100, 7))
    """
    if into is not None and not isinstance(into, Layer):
        raise TypeError(f"load: into is {shown(into)}, expected a layer or a model")
    from .weights import telling_form

    with telling_form("load", path):
        arrays, description = files.read(path)
    kind, name = description.get("kind"), file_name(files.as_path(path))
    if into is None and kind in NETS:
        return NETS[kind]._read(name, arrays, description)
    if kind == "character model":
        if into is None:
            from ..app.charmodel import load_model

            return load_model(path)
    elif kind != KIND:
        raise ValueError(f"{name} holds no model of pyrnn" + (f", but a {shown(kind)}" if kind else ""))
    elif description.get("version") != VERSION:
        version = shown(description.get("version"))
        raise ValueError(f"{name} is of version {version}, and this pyrnn reads version {VERSION}")
    if into is None and "type" not in description:
        reason = cut(description.get("unmade"))
        raise ValueError(f"{name} holds values alone ({reason}): give it a model of that kind, load(path, into=model)")
    try:
        if into is None:
            with at_most(sum(array.size for array in arrays.values())):
                into = made("load", "the model", {part: description[part] for part in ("type", "config")})
            into._take(arrays)
        else:
            into.load_state_dict(arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    return into
