"""Jobs over a folder of images: by a model here, by a service, killed, shared."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from candor.cli.main import build_app
from candor.contracts import api
from candor.explained.images import find_images
from candor.explained.job import JobPlace, LocalJob, RemoteJob
from candor.explained.plan import PlanError
from candor.explained.rows import ExplanationRow, read_rows
from candor.explained.work import Summary
from candor.gateway.service.routing import Route
from candor.jobs.shared_work import work_until_done
from candor.stack.in_process import open_local
from tests.explained.folders import OPTIONS, content, local_job, make_images
from tests.gateway.servers import Servers, opened

REPOSITORY = Path(__file__).resolve().parents[2]
COUNT = 18


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), COUNT)


def done(job: LocalJob | RemoteJob) -> Summary:
    with job.opened() as work:
        work_until_done(work, lambda finished: None)
        return work.finish()


@pytest.fixture(scope="module")
def undisturbed(images: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed")
    assert done(local_job(images, out, model)).images == COUNT + 2
    return out


def test_job_killed_twice_equals_an_undisturbed_one_and_computes_only_what_was_lost(
    images: Path, model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.explained.killed", model, images, tmp_path]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    printed = subprocess.run(
        command, env=environment, cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert content(tmp_path) == content(undisturbed)
    # The first process kept block 0 and was killed in block 4, the second kept another one.
    assert sorted(map(int, printed.stdout.split())) == [4, 12, 16]


def test_rows_say_what_a_request_says_and_unreadable_images_why(
    images: Path, model: Path, undisturbed: Path, photo: Path, tmp_path: Path
) -> None:
    rows = read_rows(undisturbed / "explanations.parquet")
    assert [row.image for row in rows] == sorted(row.image for row in rows)
    errors = {row.image: row.error or "" for row in rows if row.error}
    assert errors.keys() == {"b/no.jpg", "cut.png"}
    assert "got text" in errors["b/no.jpg"]
    assert "truncated" in errors["cut.png"]
    row = rows[0]
    request = api.ExplainRequest(
        image=api.ImageInput(encoded=(images / row.image).read_bytes()),
        targets=(api.ClassRef(name=row.target_name),),
        solver=OPTIONS.solver,
        steps=OPTIONS.steps,
    )
    place = JobPlace(images=photo.parent, out=tmp_path)
    options = OPTIONS.model_copy(update={"measure_radius": True})
    done(LocalJob(place=place, options=options, model=model))
    (measured,) = read_rows(tmp_path / "explanations.parquet")
    probe = api.ProbeRequest(
        image=api.ImageInput(encoded=photo.read_bytes()), goals=("attack",), solver="fast"
    )
    with open_local(model) as client:
        response = client.explain(request)
        (radius,) = client.probe(probe).results
    assert measured.radius == pytest.approx(radius.radius, rel=1e-3)
    assert row.target_name == response.predictions_before[1].name, "the runner-up"
    check_same(row, response, undisturbed)


def check_same(row: ExplanationRow, response: api.ExplainResponse, out: Path) -> None:
    (said,) = response.explanations
    assert (row.status, row.flips, row.steps) == (said.status, said.flips, said.steps)
    assert row.class_name == said.predicted_before.name
    assert row.after_name == said.predicted_after.name
    for field in ("rho", "rmse", "rho_1", "rho_1_5", "rho_inf", "confidence_before", "sparsity"):
        assert getattr(row, field) == pytest.approx(getattr(said, field), rel=1e-4), field
    assert row.original_file is not None
    assert (out / row.original_file).read_bytes() == response.input_png


def test_service_explains_a_folder_with_the_radius_of_each_image(
    images: Path, servers: Servers, tmp_path: Path
) -> None:
    options = OPTIONS.model_copy(
        update={"measure_radius": True, "target": api.ClassRef(index=1), "norm": "l1.5"}
    )
    place = JobPlace(images=images / "a", out=tmp_path)
    job = RemoteJob(place=place, options=options, client=servers.client)
    assert done(job).errors == 0
    row = read_rows(tmp_path / "explanations.parquet")[3]
    image = api.ImageInput(encoded=(images / "a" / row.image).read_bytes())
    check_same(
        row,
        servers.client.explain(
            api.ExplainRequest(
                image=image,
                targets=(api.ClassRef(index=1),),
                norm=row.norm,
                solver="fast",
                steps=2,
                rhos=(row.rho,),
            )
        ),
        tmp_path,
    )
    label = api.ClassRef(index=row.class_index)
    probe = api.ProbeRequest(image=image, label=label, goals=("attack",), solver="fast")
    (radius,) = servers.client.probe(probe).results
    assert row.radius == pytest.approx(radius.radius)


def test_rows_are_of_the_version_that_the_job_began_with(images: Path, tmp_path: Path) -> None:
    route = Route(primary="1.2", canary="2.0", weight=0.5)
    place = JobPlace(images=images / "a", out=tmp_path)
    for servers in opened(models=("linear@1.2", "linear@2.0"), routes={"linear": route}):
        with pytest.raises(PlanError, match="name: expected answers of linear 1.2, with which"):
            done(RemoteJob(place=place, options=OPTIONS, client=servers.client))
        named = RemoteJob(place=place, options=OPTIONS, client=servers.client, name="linear@1.2")
        assert done(named).errors == 0


def test_files_of_the_results_are_no_images_of_the_folder(images: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "blocks").mkdir(parents=True)
    for name in ("one.PNG", ".hidden.png", "out/blocks/two.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    found = find_images(tmp_path, without=tmp_path / "out")
    assert [file.name for file in found.files] == ["caf\\xe9.png", "one.PNG"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["IMAGES"], "out: expected --out DIR for a folder of images, got none"),
        (["IMAGES", "--out", "IMAGES"], "out: expected another folder than the images', got "),
        (["IMAGES", "--out", "NEW", "--against"], "against: expected one image with this option"),
        (["IMAGES", "--out", "NEW", "--rho", "2"], "rho: expected 1.0 or less, got 2.0"),
        (["IMAGES", "--out", "NEW", "--target", "cat", "--target", "dog"], "target: expected at"),
        (["IMAGES", "--out", "NEW", "--target", "cow"], "target: expected one of "),
        (["IMAGES", "--out", "NEW", "--target-index", "10"], "target: expected [0, 9], got 10"),
        (["EMPTY", "--out", "NEW"], "image: expected a folder with files .bmp"),
        (["IMAGES", "--out", "OLD"], "holds a job that differs in "),
        (["PHOTO", "--target", "cat", "--measure-radius"], "measure-radius: expected a folder of"),
    ],
)
def test_bad_option_is_one_line(
    images: Path,
    model: Path,
    undisturbed: Path,
    photo: Path,
    tmp_path: Path,
    options: list[str],
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    paths = {"IMAGES": images, "OLD": undisturbed, "NEW": tmp_path / "new", "PHOTO": photo}
    paths["EMPTY"] = tmp_path / "empty"
    command = ["explain", *(str(paths.get(option, option)) for option in options)]
    result = CliRunner().invoke(build_app(), [*command, "--model", str(model)])
    assert result.exit_code == 1
    (line,) = result.stderr.strip().splitlines()[-1:]
    assert line.startswith("candor explain: ")
    assert message in line
    assert not (tmp_path / "new" / "plan.json").exists()
