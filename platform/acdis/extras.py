"""What may be missing: Ray and MLflow come with extras, and the core does without them."""

from __future__ import annotations

from importlib.util import find_spec

from acdis.errors import UserError

#: Extra → what its users call it, and the packages of it that are imported; `pyproject.toml` installs them.
EXTRAS = {
    "cluster": ("Ray", ("ray", "optuna")),
    "tracking": ("MLflow", ("mlflow", "fastapi", "starlette", "sqlalchemy")),
}


def installed(extra: str) -> bool:
    """Whether all packages of an extra are here; imports none of them."""
    return all(find_spec(package) is not None for package in EXTRAS[extra][1])


def command(extra: str) -> str:
    """What installs it. The name is the distribution's, so that what is here already is kept."""
    return f"pip install 'acdis-platform[{extra}]'"


def need(extra: str, what: str) -> None:
    """Raise UserError where `what` cannot be done without the extra; before anything expensive starts."""
    if not installed(extra):
        raise UserError(f"{what}: needs {EXTRAS[extra][0]}, which is not installed; {command(extra)}")


def missing(error: ImportError) -> UserError | None:
    """An import that failed, in a user's words; none where what is missing belongs to no extra."""
    package = (error.name or "").partition(".")[0]
    for extra, (_, packages) in EXTRAS.items():
        if package in packages and find_spec(package) is None:
            return UserError(f"the package {package!r} is not installed; {command(extra)}")
    return None
