"""What stands beside an exported job: how to run it, and how it differs from a run here."""

from __future__ import annotations

from collections.abc import Sequence

from slmops.recipe.teachers import EndpointTeacher

_README = """\
# {name}: a distillation job for Azure Machine Learning

| file | holds |
| --- | --- |
| `job.yaml` | the job: {train} rows to learn from, {validation} to validate with |
| `train.jsonl`, `validation.jsonl` | chats that the teacher answers; no row of the test set is among them |
| `connection.yaml` | the connection to the teacher, without its key |

With the [Azure CLI](https://learn.microsoft.com/cli/azure/) and its extension `ml`, 2.32.0 or later, in this folder:

```sh
az extension add --name ml
az ml connection create --file connection.yaml --set api_key="${key}" --resource-group GROUP --workspace-name WORKSPACE
az ml job create --file job.yaml --resource-group GROUP --workspace-name WORKSPACE
```

The key is read from the environment variable `{key}` and kept by the workspace, as the connection `{teacher}`. It
belongs into no file: what a job says of its connection can be read by all who may read the workspace.

Which models may teach and learn, and where, is decided by Azure, not checked here.

## What is different from a run here

{notes}
- Epochs are `train.epochs`, rounded up; all else of the training is Azure's own. The model is registered as `{name}`.
"""


def key_variable(teacher: EndpointTeacher) -> str:
    """The environment variable with the teacher's key; Azure wants a key from every endpoint."""
    return teacher.key_env or "TEACHER_KEY"


def readme(name: str, teacher: EndpointTeacher, train: int, validation: int, notes: Sequence[str]) -> str:
    """Markdown; `train` and `validation` count rows."""
    listed = "\n".join(f"- {note}" for note in notes)
    return _README.format(
        name=name, teacher=teacher.name, key=key_variable(teacher), train=train, validation=validation, notes=listed
    )
