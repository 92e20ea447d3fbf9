"""What pyproject.toml cannot say: a wheel has the specs and experiments, which stand beside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
ENDINGS = (".yaml", ".txt")


class WithSpecs(build_py):
    """Also `ablations/` and `experiments/`, as `acdis/shipped/`; a checkout has its own (`acdis.home`)."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        shipped = Path(self.build_lib) / "acdis" / "shipped"
        for folder in ("ablations", "experiments"):
            for source in sorted((ROOT / folder).rglob("*")):
                if source.suffix in ENDINGS:
                    place = shipped / source.relative_to(ROOT)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, place)


setup(cmdclass={"build_py": WithSpecs})
