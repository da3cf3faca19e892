"""Options that `predict`, `explain`, `probe` and `compare` share."""

from pathlib import Path
from typing import Annotated

import typer

from candor import terms
from candor.contracts import limits

Image = Annotated[Path, typer.Argument(help="PNG, JPEG or WebP.")]
ModelDir = Annotated[
    Path | None, typer.Option("--model", help="Model folder to use in this process, no service.")
]
TopK = Annotated[int, typer.Option(help="Classes to list.")]
Steps = Annotated[
    int | None, typer.Option(help=f"Search steps, [1, {limits.MAX_STEPS}]; default the solver's.")
]
Solver = Annotated[str, typer.Option(help=f"One of {terms.SOLVERS}.")]
Seed = Annotated[int, typer.Option(help="Same request, same seed, same result.")]
OutDir = Annotated[Path | None, typer.Option("--out", help="Folder for the images.")]
