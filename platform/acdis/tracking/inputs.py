"""The data sets of a run, as MLflow's inputs."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Data(NamedTuple):
    """Cases that a cell was trained or scored on, as MLflow keeps them: no names, no paths.

    Attributes:
        name: `training` or `testing`, its context as well.
        digest: of the cases' content and preparation.
        cases: how many.
    """

    name: str
    digest: str
    cases: int

    def entity(self) -> Any:
        """MLflow's; a digest there has 36 characters at most."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"fingerprint": self.digest})
        profile = json.dumps({"cases": self.cases})
        data = Dataset(self.name, self.digest[:36], "acdis", source, profile=profile)
        return DatasetInput(data, [InputTag("mlflow.data.context", self.name)])
