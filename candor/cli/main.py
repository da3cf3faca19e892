"""The command `candor`: a table of its commands, each loaded when it is used."""

import typer

from candor.cli.lazy import Entry, LazyGroup

_COMMANDS = "candor.cli.commands"


class CandorGroup(LazyGroup):
    """All commands, in the order of the help."""

    table = {
        "predict": Entry(f"{_COMMANDS}.predict:predict", "What is this image?"),
        "explain": Entry(
            f"{_COMMANDS}.explain:explain",
            "Show the image changed by rho so that the network says the target.",
        ),
        "gallery": Entry(
            f"{_COMMANDS}.gallery:gallery",
            "Make the pages of a folder of explained images anew from its table.",
        ),
        "probe": Entry(
            f"{_COMMANDS}.probe:probe",
            "How little must the image change before the network errs (attack, BTR)?",
        ),
        "compare": Entry(
            f"{_COMMANDS}.compare:compare",
            "Compare other explanations with the adversarial one, and measure how stable all are.",
        ),
        "ara": Entry(
            f"{_COMMANDS}.measure:ara",
            "Accuracy, attack ARA and BTR ARA of a model on test images, with 95 % intervals.",
        ),
        "nodules": Entry(
            f"{_COMMANDS}.nodules:nodules",
            "Sensitivity at five false positives a film, as the paper scores JSRT.  (II-B)",
        ),
        "export": Entry(
            f"{_COMMANDS}.export:export",
            "Write a model as one file for other runtimes, checked and timed against torch.",
        ),
        "verify": Entry(
            f"{_COMMANDS}.verify:verify",
            "Check a report's signature and files; names what was changed, then exits with 1.",
        ),
        "report-worker": Entry(
            f"{_COMMANDS}.report_worker:report_worker",
            "Compute the jobs of a store until SIGTERM, which gives the job back.",
        ),
        "train": Entry(
            f"{_COMMANDS}.train:train",
            "Train an experiment; the same command goes on where a stopped run left off.",
        ),
        "robustify": Entry(
            f"{_COMMANDS}.robustify:robustify",
            "Fine-tune any model so that its explanations show something; repeated, it goes on.",
        ),
        "candidates": Entry(
            f"{_COMMANDS}.candidates:candidates",
            "Overly confident adversarial images of training data, into the store for annotators.",
        ),
        "active-report": Entry(
            f"{_COMMANDS}.active_report:active_report",
            "Did the annotations help?  Three networks pairwise on the same test images.  (IV-C)",
        ),
        "experiments": Entry(
            f"{_COMMANDS}.experiments:experiments",
            "List the experiments: accuracy (%), attack ARA and BTR ARA (RMSE) of the paper and "
            "ours.",
        ),
        "serve": Entry(
            f"{_COMMANDS}.serve:serve",
            "Serve every model of the store until Ctrl-C; then finish what runs and stop.",
        ),
        "archives": Entry(
            f"{_COMMANDS}.worker:archives",
            "Build the TorchServe archives of every model, where they are not up to date.",
        ),
        "worker": Entry(
            f"{_COMMANDS}.worker:worker",
            "Become TorchServe with every model of the store, without the gateway.",
        ),
        "demo": Entry(
            f"{_COMMANDS}.demo:demo",
            "Start the service, explain a photograph, write the images and stop.",
        ),
        "import": Entry(
            f"{_COMMANDS}.import_model:import_",
            "Turn a network of another library into a tested model folder; runs no code it names.",
        ),
        "audit": Entry(f"{_COMMANDS}.audit:app", "Robustness reports that an auditor can sign."),
        "reports": Entry(
            f"{_COMMANDS}.reports:app", "Robustness reports as jobs of a running service."
        ),
        "explanation-jobs": Entry(
            f"{_COMMANDS}.explanation_jobs:app", "Explanations of many images as jobs of a service."
        ),
        "annotations": Entry(f"{_COMMANDS}.annotations:app", "Verdicts of annotators."),
        "store": Entry(f"{_COMMANDS}.store:app", "Everything in the store as one file, and back."),
        "figures": Entry(
            f"{_COMMANDS}.figures:app", "Draw the paper's figures as PNG, SVG and PDF."
        ),
        "guideline": Entry(
            f"{_COMMANDS}.guideline:app", "Guideline values of the paper's equations."
        ),
        "keys": Entry(f"{_COMMANDS}.keys:app", "Bearer keys of the service."),
    }


def build_app() -> typer.Typer:
    """The command as an object; loads no command."""
    app = typer.Typer(
        name="candor",
        cls=CandorGroup,
        help="Robust image classifiers that say why.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
    )
    app.callback()(_no_options_of_its_own)
    return app


def main() -> None:
    build_app()()


def _no_options_of_its_own() -> None:
    """Makes a group of the app, to which typer itself knows no command."""
