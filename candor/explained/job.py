"""A job over the images of a folder, from its options to work that processes share."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from candor import terms
from candor.client.sync import CandorClient
from candor.contracts.api import ClassRef
from candor.contracts.explanation_jobs import ExplanationOptions
from candor.contracts.names import UnknownClass, class_index, split_name
from candor.explained.explainer import Explainer
from candor.explained.images import Found, find_images
from candor.explained.local import LocalExplainer
from candor.explained.plan import Engine, ExplanationPlan, settle_plan
from candor.explained.remote import RemoteExplainer
from candor.explained.results import Results
from candor.explained.work import ExplanationWork
from candor.models.folder import read_card
from candor.runtime.preparation import compiling_pays
from candor.store.blocks import DEFAULT_LEASE_SECONDS, SharedBlocks, worker_name
from candor.store.engine import Store, open_store

BLOCKS_FILE = "blocks.sqlite"
Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPlace:
    """Where the images of a job are and where its results go; every worker of it has the same.

    Attributes:
        images: folder of the images.     out: folder of results, in which the job goes on.
        store: address of the store by which workers share the job; empty: `BLOCKS_FILE` in ``out``.
        lease_seconds: silence after which another worker takes a worker's block.
        work_name: names the blocks of a job that begins here; see `ExplanationPlan`.
    """

    images: Path
    out: Path
    store: str = ""
    lease_seconds: float = DEFAULT_LEASE_SECONDS
    work_name: str = field(default_factory=lambda: uuid.uuid4().hex)

    def found(self, notify: Notify) -> Found:
        """The images; says which files are none.  Raises: ValueError, OSError."""
        if self.out.resolve() == self.images.resolve():
            raise ValueError(f"out: expected another folder than the images', got {self.out}")
        found = find_images(self.images, without=self.out)
        if found.passed_over:
            count = sum(found.passed_over.values())
            endings = ", ".join(sorted(ending or "none" for ending in found.passed_over))
            notify(f"files left out, no images by their endings ({endings}): {count}")
        return found

    @contextmanager
    def work(
        self, plan: ExplanationPlan, found: Found, explainer: Explainer
    ) -> Iterator[ExplanationWork]:
        """One worker's part; ``plan`` is the settled one.  Raises: StoreError."""
        with closing(self._store()) as store:
            blocks = SharedBlocks(store, plan.work, worker_name(), lease_seconds=self.lease_seconds)
            results = Results(self.out)
            yield ExplanationWork(plan, found.files, results, explainer, blocks)

    def forget(self) -> None:
        """Delete the blocks of a job that does not go on, for another of the same name."""
        with closing(self._store()) as store:
            SharedBlocks(store, self.work_name, worker_name()).forget()

    def _store(self) -> Store:
        return open_store(self.store or str(self.out / BLOCKS_FILE))


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalJob:
    """Explanations by a model in this process.

    Attributes:
        model: model folder.
        served: name of the model in the rows; empty for that of its card.
        compiles: whether searches step through the compiled network; None where it pays.
    """

    place: JobPlace
    options: ExplanationOptions
    model: Path
    served: str = ""
    compiles: bool | None = None

    @contextmanager
    def opened(
        self,
        notify: Notify = lambda notice: None,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[ExplanationWork]:
        """This process's part in the job.

        Args:
            notify: takes a line for the user before a long wait and about files left out.
            check: called before every evaluation of the network; what it raises ends the work.
        Raises:
            ArtifactError, PlanError, StoreError: model, folder of results or store.
            ValueError, OSError: an option, or the folder of images.
        """
        found, card = self.place.found(notify), read_card(self.model)
        described = _Described(
            name=self.served or card.name,
            version=card.version,
            digest=card.identity,
            classes=card.classes,
            recommended_rho=card.recommended_rho,
        )
        pays = compiling_pays(self.compiles, len(found.files) * self.options.steps)
        engine: Engine = "compiled" if pays else "eager"
        plan = _settled(self.place, self.options, found, described, engine)
        explainer = LocalExplainer(self.model, plan, notify=notify, check=check)
        with self.place.work(plan, found, explainer) as work:
            yield work


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteJob:
    """Explanations by a running service.

    Attributes:
        name: of a model of the service; empty for its default.
    """

    place: JobPlace
    options: ExplanationOptions
    client: CandorClient
    name: str = ""

    @contextmanager
    def opened(self, notify: Notify = lambda notice: None) -> Iterator[ExplanationWork]:
        """This process's part in the job.

        Args:
            notify: takes a line for the user about files left out.
        Raises:
            ServiceError: the service does not answer or has no such model.
            PlanError, StoreError: folder of results or store.
            ValueError, OSError: an option, or the folder of images.
        """
        found = self.place.found(notify)
        details = self.client.get_model(self.name)
        described = _Described(
            name=details.model.name,
            version=details.model.version,
            digest=details.model.weights_digest,
            classes=details.classes,
            recommended_rho=details.recommended_rho,
        )
        plan = _settled(self.place, self.options, found, described, "service")
        with (
            RemoteExplainer(self.client, plan, self.name) as explainer,
            self.place.work(plan, found, explainer) as work,
        ):
            yield work


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """The model that explains; fields as in `ExplanationPlan` and the model's card."""

    name: str
    version: str
    digest: str
    classes: Sequence[str]
    recommended_rho: float


def _settled(
    place: JobPlace, options: ExplanationOptions, found: Found, model: _Described, engine: Engine
) -> ExplanationPlan:
    """Raises: PlanError: the folder of results has another job."""
    radius_steps = terms.default_steps(options.solver, explains=False)
    plan = ExplanationPlan(
        work=place.work_name,
        model=split_name(model.name)[0],
        model_version=model.version,
        model_digest=model.digest,
        images=tuple(file.name for file in found.files),
        target_index=target_index(options.target, model.classes),
        rho=options.rho or model.recommended_rho,
        norm=options.norm,
        solver=options.solver,
        steps=options.steps,
        seed=options.seed,
        radius_steps=radius_steps if options.measure_radius else None,
        block_size=options.batch_size,
        engine=engine,
    )
    return settle_plan(place.out, plan)


def target_index(target: ClassRef | None, classes: Sequence[str]) -> int | None:
    """Raises: ValueError: the model has no such class."""
    if target is None:
        return None
    try:
        if target.index is None:
            return class_index(target.name or "", classes)
    except UnknownClass as err:
        raise ValueError(f"target: {err}") from err
    if target.index >= len(classes):
        raise ValueError(f"target: expected [0, {len(classes) - 1}], got {target.index}")
    return target.index
