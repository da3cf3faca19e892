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
Mask = Annotated[
    Path | None,
    typer.Option(
        help="PNG of the image's size: only where it is white, or opaque, may the image change."
    ),
]
BoxText = Annotated[
    str | None,
    typer.Option(
        "--box",
        metavar="X,Y,WIDTH,HEIGHT",
        help="Pixels of the image; only inside this box may it change.",
    ),
]
Outside = Annotated[
    bool, typer.Option("--outside", help="Everything but the mask or the box may change.")
]
OutDir = Annotated[Path | None, typer.Option("--out", help="Folder for the images.")]
