"""The command `candor`.  This room may import every other; none imports it."""

import typer

from candor.cli.commands import (
    active_report,
    annotations,
    audit,
    candidates,
    demo,
    experiments,
    export,
    figures,
    guideline,
    import_released,
    keys,
    measure,
    query,
    report_worker,
    reports,
    serve,
    stores,
    train,
    worker,
)


def build_app() -> typer.Typer:
    app = typer.Typer(
        name="candor",
        help="Robust image classifiers that say why.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
    )
    app.command()(query.predict)
    app.command()(query.explain)
    app.command()(query.probe)
    app.command()(query.compare)
    app.command()(measure.ara)
    app.command()(export.export)
    app.add_typer(audit.app, name="audit")
    app.command()(audit.verify)
    app.add_typer(reports.app, name="reports")
    app.command("report-worker")(report_worker.report_worker)
    app.command()(train.train)
    app.command()(candidates.candidates)
    app.add_typer(annotations.app, name="annotations")
    app.command("active-report")(active_report.active_report)
    app.add_typer(stores.app, name="store")
    app.command()(experiments.experiments)
    app.add_typer(figures.app, name="figures")
    app.add_typer(guideline.app, name="guideline")
    app.add_typer(keys.app, name="keys")
    app.command()(serve.serve)
    app.command()(worker.archives)
    app.command()(worker.worker)
    app.command()(demo.demo)
    app.command("import-released")(import_released.import_released)
    return app


def main() -> None:
    build_app()()
