"""Folders among images that are passed over: hidden ones, and those of systems.

Systems and programs put previews, copies and removed files beside images: Synology, QNAP, macOS (in
its .zip), Windows, Linux, Jupyter.
"""

_SYSTEM = {"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx"}
_SYSTEM |= {"$recycle.bin", "system volume information", "lost+found", ".ipynb_checkpoints"}


def is_system_folder(name: str) -> bool:
    """Whether a folder is called like one that a system puts among images."""
    return name.lower() in _SYSTEM


def is_hidden_folder(name: str) -> bool:
    """Whether the images of a folder of this name are passed over."""
    return name.startswith(".") or is_system_folder(name)
